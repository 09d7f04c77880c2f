"""Entry points; full_sweep.py is the main one."""
