"""The library: data, reward maths, training objectives, search methods, evaluation, stages.

Imports go one way: jobs -> actors -> orchestrator. Nothing here imports Ray, but for the driver's
own steps in jobs/.
"""
