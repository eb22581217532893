"""The gradient view of checkpoints: opens them, measures them on their recorded images, draws the curves."""
