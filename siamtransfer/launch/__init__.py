"""Starts a program on all GPUs of this machine or as a Slurm job, and copies images to a node's own disk.

Nothing here imports torch when it is imported.
"""
