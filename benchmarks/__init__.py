"""Measurements of the project by itself, each a program: `python -m benchmarks.NAME`."""
