"""Checkpoints of other projects, and of the 2019 release, brought to its names and layout."""
