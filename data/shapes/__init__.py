"""Generated scenes with exact masks; loaded only where the dataset "shapes" is asked for."""
