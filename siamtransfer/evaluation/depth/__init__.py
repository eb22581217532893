"""Depth from the patches of a frozen backbone: linear probes, errors in metres."""
