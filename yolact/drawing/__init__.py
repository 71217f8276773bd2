"""Pictures of detections, prototypes and numbers."""
