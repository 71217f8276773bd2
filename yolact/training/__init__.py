"""Setup, checkpoints, logs and validation of training."""
