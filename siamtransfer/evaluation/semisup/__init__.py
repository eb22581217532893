"""Fine-tuning of a whole backbone on few labels, or on all of them."""
