"""Download from and upload to the Hugging Face hub, and folders in its format."""
