"""The sweep: its plan, its runner, and the steps that join the library with the actors."""
