"""Jobs that map one input file to one output folder: decode and score."""
