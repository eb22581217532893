"""A training run: what it builds, one step of it, what it writes down and shows."""
