"""Semantic segmentation by frozen features: linear, nearest neighbours and clusters of patches."""
