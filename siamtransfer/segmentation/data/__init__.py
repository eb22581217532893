"""Images with a mask of classes each: opened by name, checked, read by index."""
