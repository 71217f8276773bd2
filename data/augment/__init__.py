"""From a sample on disk to the tensors of a training step."""
