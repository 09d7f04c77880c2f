"""Entry points; full_sweep.py is the main one."""

import orchestrator as orchestrator  # sets what is read when torch is loaded
