"""Models from the hub of Hugging Face and for it, and in its form in folders."""
