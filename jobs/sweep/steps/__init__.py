"""The steps of a sweep: each reads the outputs of finished stages and writes those of one stage."""
