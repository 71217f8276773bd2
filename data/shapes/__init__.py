"""Generated scenes with exact masks; nothing in `import yolact` loads them."""
