"""Checks and measurements for one device: run by scripts/test_gpu.py, and by pytest."""
