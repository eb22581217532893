"""Images with a depth at every pixel: read, checked, rendered."""
