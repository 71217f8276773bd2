"""COCO's average precision, and speed."""
