"""Training runs: the names of their files, and their provenance."""
