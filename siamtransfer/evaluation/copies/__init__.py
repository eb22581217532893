"""Copy detection on Copydays."""
