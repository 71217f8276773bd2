"""Segmentation of large images in overlapping tiles."""
