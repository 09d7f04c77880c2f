"""Training: batches of rows and the loop over a DeepSpeed engine (the losses are objectives)."""
