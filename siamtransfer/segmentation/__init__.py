"""Sets of images with a mask of classes each."""
