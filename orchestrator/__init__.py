"""The library: data, reward maths, training objectives, search methods, evaluation, stages.

Imports go one way: jobs -> actors -> orchestrator. Nothing in this package imports Ray.
"""

import os

# OpenMP threads that wait for each other spin briefly, then sleep. If they slept at once, a small
# model would take twice the time on an idle machine. If they kept spinning, everything would be
# many times slower beside another busy process (`jobs/bench.py threads`). Intel's OpenMP reads the
# first variable and GNU's the second when torch is loaded, so they are set before torch is
# imported.
THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "2000"}
if not any(name in os.environ for name in THREADS):  # the user's settings take precedence
    os.environ.update(THREADS)
