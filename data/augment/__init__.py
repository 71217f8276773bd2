"""How training images are varied: geometry, colours, objects of other images."""
