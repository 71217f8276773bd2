"""The sources that a user gives, turned into images."""
