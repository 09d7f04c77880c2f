"""Training objectives: the losses of Eq. 1 to 3, of implicit PRMs, of supervised fine-tuning."""
