"""The networks, their losses, and what makes detections of their outputs."""
