"""The library: data, reward maths, training objectives, search methods, evaluation, stages.

Imports go one way: jobs -> actors -> orchestrator. Nothing here imports Ray, but for the driver's
own steps in jobs/.
"""

import os

# Threads that wait for each other spin for a moment, then sleep. Without the moment a small model
# takes twice the time on an idle machine. Threads that go on spinning wait for a core that other
# work has, and beside it all is many times slower (`jobs/bench.py threads`). Intel's OpenMP reads
# the first, GNU's the second, when torch is loaded: so this stands before every import of torch.
THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "2000"}
if not any(name in os.environ for name in THREADS):  # what the user sets stays
    os.environ.update(THREADS)
