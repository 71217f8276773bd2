"""The doctor: what of a dataset deserves a look, what a model contradicts, a mended copy."""
