"""Optimisers, and rates as functions of the step."""
