"""Training: what a batch is, the losses (Eq. 1 to 3), the loop over a DeepSpeed engine."""
