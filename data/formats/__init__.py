"""Annotations of other tools, recognised and converted to COCO's."""
