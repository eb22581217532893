"""Where some images of a database stand in the ranked lists of queries, within a stated memory.

The whole lists of the database come from the exact search of the nearest neighbours. Distractors, of which
there may be a million, are not kept: as they stream past, each that is nearer than an image moves that image
one place back.

Legend: Q queries, N images of the database, D numbers of a descriptor.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from siamtransfer.distributed import collectives
from siamtransfer.evaluation.knn.search import search
from siamtransfer.metrics.unit_rows import unit_rows
from siamtransfer.utils.errors import UserError

LIST_BYTES = 2**28
"""Of the ranked lists that are in memory at once."""
BLOCK = 2048
"""Distractors that are compared at once."""


def places(database: Tensor, queries: Tensor, listed: Sequence[np.ndarray]) -> list[np.ndarray]:
    """For each query int64[n], from 0: the places of its n `listed` rows of the database in the list of all N
    rows by falling cosine, ties by index.

    `database`[N, D] and `queries`[Q, D] are of any floating-point type and of any scale.

    Raises:
        UserError: a number is not finite.
    """
    found: list[np.ndarray] = []
    step = max(1, LIST_BYTES // (16 * len(database)))
    for begin in range(0, len(queries), step):
        _, order = search(database, queries[begin : begin + step], len(database))
        place = torch.empty_like(order).scatter_(1, order, torch.arange(len(database)).expand_as(order))
        for row, numbers in enumerate(listed[begin : begin + step]):
            found.append(place[row, torch.from_numpy(numbers)].numpy())
    return found


class NearerDistractors:
    """How many distractors are nearer to a query than each of its listed rows of the database.

    Cosines are float64; a distractor that is exactly as near as a row comes after it.
    """

    def __init__(self, database: Tensor, queries: Tensor, listed: Sequence[np.ndarray]):
        self._queries = unit_rows(queries, torch.float64)
        self._cosines = [
            (unit_rows(database[torch.from_numpy(numbers)], torch.float64) @ query).sort()
            for query, numbers in zip(self._queries, listed, strict=True)
        ]
        self._counts = [torch.zeros(len(numbers), dtype=torch.int64) for numbers in listed]
        self._waiting: list[Tensor] = []
        self._images = 0

    @property
    def images(self) -> int:
        """How many distractors all ranks have taken in."""
        return sum(collectives.all_gather_object([self._images]))

    def add(self, descriptors: Tensor) -> None:
        """Takes in some of the distractors, [n, D].

        Raises:
            UserError: a number is not finite.
        """
        if not bool(torch.isfinite(descriptors).all()):
            raise UserError("the descriptors of distractors hold values that are not finite")
        self._images += len(descriptors)
        self._waiting.append(descriptors)
        if sum(map(len, self._waiting)) >= BLOCK:
            self._count()

    def counts(self) -> list[np.ndarray]:
        """For each query int64[n], in the order of its listed rows, over the distractors of all ranks."""
        self._count()
        found = []
        for (_, order), counts in zip(self._cosines, self._counts, strict=True):
            found.append(torch.empty_like(counts).scatter_(0, order, counts))
        sizes = [len(counts) for counts in found]
        total = collectives.all_gather_object([torch.cat(found).numpy()])
        return np.split(np.sum(total, axis=0, dtype=np.int64), np.cumsum(sizes)[:-1])

    def _count(self) -> None:
        if not self._waiting:
            return
        cosines = self._queries @ unit_rows(torch.cat(self._waiting), torch.float64).T
        self._waiting = []
        ranked = cosines.sort(dim=1).values
        for row, (levels, _), counts in zip(ranked, self._cosines, self._counts, strict=True):
            counts += len(row) - torch.searchsorted(row, levels, right=True)
