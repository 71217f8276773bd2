"""A local web page and a JSON endpoint."""
