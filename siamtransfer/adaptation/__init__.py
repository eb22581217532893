"""Adapting a network with weights to new images without losing what it knew."""
