"""Shared by tests: tiny models, datasets, clips, goldens."""
