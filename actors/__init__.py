"""What runs as a Ray actor: policy, reward, reference scorer, and the training desk."""

import orchestrator as orchestrator  # sets what is read when torch is loaded
