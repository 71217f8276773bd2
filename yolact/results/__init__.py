"""What a model finds, and the forms in which it leaves."""
