"""Nearest neighbours: search, vote, picture."""
