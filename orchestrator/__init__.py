"""The library: data, reward maths, training objectives, search methods, evaluation, stages.

Imports go one way: jobs -> actors -> orchestrator. Nothing here imports Ray, but for the driver's
own steps in jobs/.
"""

import os

# Threads that wait for each other sleep: spinning, they wait for a core that other work has, and
# computing beside it is many times slower. OpenMP reads this when torch is loaded, so it stands
# before every import of torch, here for who uses the library in a process of their own.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
