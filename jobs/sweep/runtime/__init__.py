"""What carries results between steps and starts processes: it cannot change what a step computes.

The modules of this package do not count in the keys of stages (`orchestrator/stages/identity.py`).
"""
