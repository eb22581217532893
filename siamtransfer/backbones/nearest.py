"""The network of the catalogue that certain tensors resemble most, for the sentence that refuses them.

The catalogue knows a network by a digest of all its names and shapes, so that it finds none for a file of
which one tensor is missing or has another name. Here the file is compared with the networks tensor by tensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.backbones.catalogue import Shape, load_catalogue
from siamtransfer.backbones.outlines import read_outlines

_DIFFERENT = 4  # tensors; two of them renamed, or a layer missing


class Nearest(NamedTuple):
    """The network that has almost certain tensors.

    Attributes:
        architecture: the network.
        head: the names of those tensors that are a classifier's.
    """

    architecture: Architecture
    head: frozenset[str]


def find_nearest(shapes: Mapping[str, Shape]) -> Nearest | None:
    """The network that has almost these tensors; None where there is none.

    A tensor of another name or shape counts twice, as one that the network lacks and one that the file lacks.
    """
    catalogue = load_catalogue()
    heads = {name for head in catalogue.heads for name in head}
    count = len(shapes.keys() - heads)
    if count <= _DIFFERENT:
        return None
    first_names = {groups[0][0] for groups in catalogue.exact.values()}
    nearest, fewest = None, _DIFFERENT + 1
    for names, own in read_outlines(range(count - _DIFFERENT, count + _DIFFERENT + len(heads))):
        head = frozenset(heads & shapes.keys() - own.keys())
        given = {(key, shape) for key, shape in shapes.items() if key not in head}
        different = len(given ^ set(own.items()))
        if different < fewest:
            name = next((name for name in names if name in first_names), names[0])
            nearest, fewest = Nearest(Architecture(name), head), different
    return nearest
