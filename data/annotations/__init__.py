"""COCO-style annotations: read, checked, kept in arrays."""
