"""Large pictures, segmented in overlapping tiles."""
