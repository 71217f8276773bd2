"""Formats that keep masks as pictures: every pixel has the number of its object."""
