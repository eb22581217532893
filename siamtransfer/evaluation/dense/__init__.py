"""Dense features of a frozen backbone: what all evaluators of patches share."""
