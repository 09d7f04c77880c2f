"""The exit codes of the jobs; `BAD_CONFIG` is also that of a wrong option."""

OK, FAILED, BAD_CONFIG, INTERRUPTED = 0, 1, 2, 130
