"""Frames through the network, in threads."""
