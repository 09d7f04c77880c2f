"""The steps of a sweep: each reads finished stages and writes one."""
