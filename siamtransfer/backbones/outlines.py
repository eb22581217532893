"""The tensors of the catalogue's networks, known without building a network.

timm and torchvision take seconds to import, and a file is compared with names, shapes and types alone.
`outlines.json.xz` has a line of JSON for every list of tensors: the networks that have it, each with the
number of its attention heads, and the tensors in the order of the layers. `scripts/build_catalogue.py` writes
it together with the catalogue.
"""

from __future__ import annotations

import functools
import json
import lzma
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from importlib import metadata, resources
from typing import NamedTuple

import torch
from torch import Tensor

from siamtransfer.backbones.catalogue import Shape, load_catalogue
from siamtransfer.backbones.names import TORCHVISION

FILE = "outlines.json.xz"
_USUAL = "float32"

Row = tuple[str, tuple[int, ...], str]
"""The name of a tensor, its shape and its type, as `float32`."""


class Outline(NamedTuple):
    """What is known of a network.

    Attributes:
        tensors: its tensors by name in the order of the layers, on the device meta; not to be changed.
        heads: the number of attention heads of a plain ViT; None for any other network.
    """

    tensors: dict[str, Tensor]
    heads: int | None


@functools.lru_cache(maxsize=16)
def find_outline(name: str) -> Outline | None:
    """The outline of `timm:NAME` or `torchvision:NAME`, a network with all of its library's own choices.

    None for a network that is not in the catalogue, and for all of a library that is installed in another
    version than the one that the catalogue was made from: such a network has to be built.
    """
    if not _is_of_installed(name):
        return None
    text = _content()
    place = text.find(f"{json.dumps(name)}:".encode())
    if place < 0:
        return None
    line = json.loads(text[text.rfind(b"\n", 0, place) + 1 : text.find(b"\n", place)])
    tensors = {
        key: torch.empty(shape, dtype=getattr(torch, kind[0] if kind else _USUAL), device="meta")
        for key, shape, *kind in line["tensors"]
    }
    return Outline(tensors, line["networks"][name])


def read_outlines(counts: Container[int]) -> Iterator[tuple[list[str], dict[str, Shape]]]:
    """The names and shapes of every list that has so many tensors, with the networks that have it."""
    for text in _content().splitlines():
        line = json.loads(text)
        if len(line["tensors"]) in counts:
            yield list(line["networks"]), {key: tuple(shape) for key, shape, *_ in line["tensors"]}


def _content() -> bytes:
    """A line of JSON for every list of tensors."""
    return lzma.decompress(resources.files(__package__).joinpath(FILE).read_bytes())


def _is_of_installed(name: str) -> bool:
    """Whether the network's library is installed in the version that the catalogue was made from."""
    library = "torchvision" if name.startswith(TORCHVISION) else "timm"
    try:
        installed = metadata.version(library).partition("+")[0]
    except metadata.PackageNotFoundError:
        return False
    return installed == load_catalogue().made_from[library]


def rows_of(state: Mapping[str, Tensor]) -> tuple[Row, ...]:
    """The names, shapes and types of a network's tensors, in their order."""
    return tuple(
        (name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        for name, tensor in state.items()
    )


def pack_outlines(networks: Iterable[tuple[str, Sequence[Row], int | None]]) -> bytes:
    """The bytes of the file, the same for the same content in any order.

    Args:
        networks: name, tensors and number of attention heads of each network.
    """
    named: dict[tuple[Row, ...], dict[str, int | None]] = {}
    for name, rows, heads in sorted(networks):
        named.setdefault(tuple(rows), {})[name] = heads
    lines = []
    for rows, names in named.items():
        tensors = [[key, shape] if kind == _USUAL else [key, shape, kind] for key, shape, kind in rows]
        lines.append(json.dumps({"networks": names, "tensors": tensors}, separators=(",", ":")) + "\n")
    return lzma.compress("".join(lines).encode(), check=lzma.CHECK_CRC64, preset=9)
