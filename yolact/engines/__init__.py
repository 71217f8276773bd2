"""Engines that run a network: PyTorch, OpenVINO, exported files."""
