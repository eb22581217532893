"""Images that are the same: equal bytes, or equal pixels in other files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from siamtransfer.data.report.examine import DIGEST, Examined


class Place(NamedTuple):
    """An image: the position of its part and its number there."""

    part: int
    image: int


@dataclass(frozen=True)
class Copies:
    """Groups of two or more equal images.

    Attributes:
        same_bytes: groups of files that are equal.
        same_pixels: groups of files with equal pixels, not all of them equal files: other names of formats
            without loss, other metadata.
    """

    same_bytes: list[list[Place]]
    same_pixels: list[list[Place]]

    @property
    def groups(self) -> list[list[Place]]:
        """All groups; one of equal bytes lies in none of equal pixels."""
        return self.same_bytes + self.same_pixels

    @property
    def surplus(self) -> int:
        """How many images are left out if one of each group is kept."""
        return sum(len(group) - 1 for group in self.groups)


class CopyFinder:
    """Collects digests, 40 bytes an image, and finds equal ones."""

    def __init__(self) -> None:
        self._bytes, self._pixels = bytearray(), bytearray()
        self._places: list[Place] = []

    def add(self, part: int, examined: Examined) -> None:
        """Notes a readable image."""
        assert examined.bytes_digest is not None
        assert examined.pixels_digest is not None
        self._bytes += examined.bytes_digest
        self._pixels += examined.pixels_digest
        self._places.append(Place(part, examined.index))

    def find(self) -> Copies:
        """The groups, in the order of their first images."""
        same_bytes = self._groups(self._bytes)
        files = np.frombuffer(bytes(self._bytes), dtype=f"V{DIGEST}")
        same_pixels = [
            group
            for group in self._groups(self._pixels)
            if len({files[place].tobytes() for place in group}) > 1
        ]
        covered = {place for group in same_pixels for place in group}
        alone = [group for group in same_bytes if not covered.issuperset(group)]
        return Copies(self._named(alone), self._named(same_pixels))

    def _groups(self, digests: bytearray) -> list[list[int]]:
        values = np.frombuffer(bytes(digests), dtype=f"S{DIGEST}").view(np.uint64).reshape(-1, 2)
        _, numbers, counts = np.unique(values, axis=0, return_inverse=True, return_counts=True)
        numbers = numbers.ravel()
        groups: dict[int, list[int]] = {}
        for position in np.flatnonzero(counts[numbers] > 1).tolist():
            groups.setdefault(int(numbers[position]), []).append(position)
        return list(groups.values())

    def _named(self, groups: Sequence[Sequence[int]]) -> list[list[Place]]:
        return [[self._places[position] for position in group] for group in groups]
