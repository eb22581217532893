"""One head, many test sets: other pictures of the same classes, and corrupted versions of the test images."""
