"""The exit codes of the jobs; `BAD_CONFIG` is also returned for an invalid option."""

OK, FAILED, BAD_CONFIG, INTERRUPTED = 0, 1, 2, 130
