"""The exit codes of the jobs; `BAD_CONFIG` is also returned for an invalid option."""

OK, FAILED, BAD_CONFIG = 0, 1, 2
SIGNALLED = 128  # plus the number of the signal that ended the job, as in shells: 130 for Ctrl-C
