"""Which networks of timm and torchvision have tensors of given names and shapes.

`catalogue.json.xz` holds a fingerprint of every network without its classifier: a digest of the sorted list
of names and shapes. `scripts/build_catalogue.py` writes it. Networks that share a fingerprint stand in
groups: those of one group also have equal modules with equal attributes, so that equal weights give equal
features; those of two groups do not, and nothing in their tensors tells them apart.
"""

from __future__ import annotations

import functools
import hashlib
import json
import lzma
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import NamedTuple

Shape = tuple[int, ...]
FILE = "catalogue.json.xz"
_DIGITS = 16  # of a digest; 1,400 networks among 2**64 values do not meet by chance


class Entry(NamedTuple):
    """The networks of one fingerprint.

    Attributes:
        groups: names as `build_backbone` takes them (`timm:vit_base_patch16_224`); the networks of a group
            compute the same.
        head: the names of the tensors in the file that belong to the classifier.
        exact: the sizes of images agree too; otherwise the network has to be built for another size.
    """

    groups: tuple[tuple[str, ...], ...]
    head: frozenset[str]
    exact: bool

    @property
    def name(self) -> str:
        """The first network."""
        return self.groups[0][0]

    @property
    def names(self) -> tuple[str, ...]:
        """All networks."""
        return tuple(name for group in self.groups for name in group)

    @property
    def ambiguous(self) -> bool:
        """Whether two networks have these tensors and compute something else from them."""
        return len(self.groups) > 1


Groups = dict[str, tuple[tuple[str, ...], ...]]


class Catalogue(NamedTuple):
    """The content of the file.

    Attributes:
        made_from: the versions of the libraries, by name.
        exact: by fingerprint, the names of networks in groups.
        sizeless: the same by the fingerprint of shapes without the size of the images.
        heads: the sets of names that classifiers have, each as a sorted tuple; the empty one is among them.
    """

    made_from: dict[str, str]
    exact: Groups
    sizeless: Groups
    heads: tuple[tuple[str, ...], ...]

    def find(self, shapes: Mapping[str, Shape]) -> Entry | None:
        """The networks whose tensors, with the classifier or without, are exactly these; None for none.

        The number of classes is free. Of two readings the one with the larger classifier counts. A network
        for images of another size than any in the catalogue is found by all else, and `Entry.exact` is false.
        """
        fitting = sorted((head for head in self.heads if shapes.keys() >= set(head)), key=len, reverse=True)
        for exact in (True, False):
            for head in fitting:
                left_out = frozenset(head)
                trunk = {name: shape for name, shape in shapes.items() if name not in left_out}
                table = self.exact if exact else self.sizeless
                groups = table.get(fingerprint(trunk if exact else without_size(trunk)))
                if groups is not None:
                    return Entry(groups, left_out, exact)
        return None


def without_size(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """The shapes with position embeddings of no length, which depends on the size of the images."""
    return {
        name: (shape[0], *(0 for _ in shape[1:-1]), shape[-1]) if name == "pos_embed" else shape
        for name, shape in shapes.items()
    }


def fingerprint(shapes: Mapping[str, Shape]) -> str:
    """The digest of names and shapes, in any order."""
    lines = (f"{name} {' '.join(map(str, shape))}\n" for name, shape in sorted(shapes.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:_DIGITS]


@functools.cache
def load_catalogue() -> Catalogue:
    """The catalogue of this release."""
    content = json.loads(lzma.decompress(resources.files(__package__).joinpath(FILE).read_bytes()))
    exact, sizeless = (
        {key: tuple(map(tuple, groups)) for key, groups in content[table].items()}
        for table in ("exact", "sizeless")
    )
    return Catalogue(content["made_from"], exact, sizeless, tuple(map(tuple, content["heads"])))


def pack(
    made_from: Mapping[str, str],
    exact: Mapping[str, Iterable[Iterable[str]]],
    sizeless: Mapping[str, Iterable[Iterable[str]]],
    heads: Iterable[Iterable[str]],
) -> bytes:
    """The bytes of the file, the same for the same content."""
    content = {
        "made_from": dict(sorted(made_from.items())),
        "exact": {key: list(map(list, exact[key])) for key in sorted(exact)},
        "sizeless": {key: list(map(list, sizeless[key])) for key in sorted(sizeless)},
        "heads": sorted(map(sorted, heads)),
    }
    text = json.dumps(content, separators=(",", ":"))
    return lzma.compress(text.encode(), format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC64, preset=9)
