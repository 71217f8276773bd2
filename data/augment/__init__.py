"""Augmentation of training images: geometry, colours, objects of other images."""
