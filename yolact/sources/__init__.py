"""What a user hands over to look at, turned into images."""
