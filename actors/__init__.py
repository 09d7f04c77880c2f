"""Ray actors: policy, reward model, search, reference scorer, and the training group's queue."""

import orchestrator as orchestrator  # sets what is read when torch is loaded
