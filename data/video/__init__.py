"""Frames from and to video files, cameras and streams."""
