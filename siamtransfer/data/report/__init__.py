"""What is in a folder of images, before anything is computed from it."""
