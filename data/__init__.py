"""Images and annotations in, tensors out. Plain values are passed in, never a configuration object."""
