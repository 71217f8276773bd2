"""Training runs: what their files are called, and what made them."""
