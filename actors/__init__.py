"""What runs as a Ray actor: policy, reward, reference scorer, and the training desk."""
