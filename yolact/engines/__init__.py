"""What runs a network: PyTorch, OpenVINO, exported files."""
