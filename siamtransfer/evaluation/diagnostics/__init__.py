"""What a representation, and a gradient, look like without labels."""
