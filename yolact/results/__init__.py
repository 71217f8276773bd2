"""Detections and their export."""
