"""Tensors of other code bases under the names of timm or torchvision, a file a family of networks.

A layout is a function from the tensors of a file to those of the library, which raises ValueError for a name
that it does not know. formats.py has the entries that use them.
"""
