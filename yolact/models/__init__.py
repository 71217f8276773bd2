"""Networks, their losses, and their detections."""
