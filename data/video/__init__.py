"""Frames from video files, cameras and streams, and frames to video files."""
