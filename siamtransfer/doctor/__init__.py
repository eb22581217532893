"""Checks of a machine: what is installed, what it has, and whether its GPU computes what the CPU does."""
