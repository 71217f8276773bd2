"""Annotations of other tools: which format a folder is in, and how it becomes COCO's."""
