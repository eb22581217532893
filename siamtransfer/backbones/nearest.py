"""The network of the catalogue that certain tensors resemble most, for the sentence that refuses them.

The catalogue knows a network by a digest of all its names and shapes, so that it finds none for a file of
which one tensor is missing or has another name. `sizes.json.xz` has the number of tensors and of values of
every network in the catalogue; `scripts/build_sizes.py` writes it. The few networks of about the size of the
file are built, and compared with it tensor by tensor.
"""

from __future__ import annotations

import functools
import json
import lzma
import math
from collections.abc import Mapping
from importlib import resources
from typing import NamedTuple

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.backbones.catalogue import Shape, load_catalogue

FILE = "sizes.json.xz"
_DIFFERENT = 4  # tensors; two of them renamed, or a layer missing
_CANDIDATES = 8  # that are built; one takes 0.1 to 0.5 s


class Size(NamedTuple):
    """How many tensors a network has without its classifier, and how many values they hold together."""

    tensors: int
    values: int


class Nearest(NamedTuple):
    """The network that has almost certain tensors.

    Attributes:
        architecture: the network.
        head: the names of those tensors that are a classifier's.
    """

    architecture: Architecture
    head: frozenset[str]


def size_of(shapes: Mapping[str, Shape]) -> Size:
    return Size(len(shapes), sum(map(math.prod, shapes.values())))


def find_nearest(shapes: Mapping[str, Shape]) -> Nearest | None:
    """The network that has almost these tensors; None where there is none.

    A tensor of another name or shape counts twice, as one that the network lacks and one that the file lacks.
    """
    catalogue = load_catalogue()
    heads = frozenset(name for head in catalogue.heads for name in head)
    size = size_of({name: shape for name, shape in shapes.items() if name not in heads})
    if size.tensors <= _DIFFERENT or size.values == 0:
        return None
    near = [
        (name, own) for name, own in load_sizes().items() if abs(own.tensors - size.tensors) <= _DIFFERENT
    ]
    near.sort(key=lambda item: abs(math.log(item[1].values / size.values)))
    nearest, fewest = None, _DIFFERENT + 1
    for name, _ in near[:_CANDIDATES]:
        own = Architecture(name).shapes()
        head = heads & shapes.keys() - own.keys()
        given = {(key, shape) for key, shape in shapes.items() if key not in head}
        different = len(given ^ set(own.items()))
        if different < fewest:
            nearest, fewest = Nearest(Architecture(name), head), different
    return nearest


@functools.cache
def load_sizes() -> dict[str, Size]:
    """The size of one network of each fingerprint in the catalogue, by its name."""
    content = json.loads(lzma.decompress(resources.files(__package__).joinpath(FILE).read_bytes()))
    return {name: Size(*size) for name, size in content.items()}


def pack_sizes(sizes: Mapping[str, Size]) -> bytes:
    """The bytes of the file, the same for the same sizes."""
    text = json.dumps(dict(sorted(sizes.items())), separators=(",", ":"))
    return lzma.compress(text.encode(), format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC64, preset=9)
