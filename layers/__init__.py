"""Pure tensor functions and small modules: no configuration, no files, no global state."""
