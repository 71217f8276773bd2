"""Images and annotations in, tensors out; plain values are passed in, no configuration."""
