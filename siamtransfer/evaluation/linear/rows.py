"""Rows of features that stay where they are, and reach the device of a fit in chunks.

Legend: N rows in memory, n chosen ones, D features, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK_BYTES = {"cpu": 2**23, "cuda": 2**27}
"""What a chunk in float64 and the numbers that are computed of it take: on the CPU they stay in its cache."""
LEAST_ROWS, MOST_ROWS = 1024, 8192  # of a chunk
ON_DEVICE = 0.5  # fraction of a GPU's free memory that features may take


@dataclass(frozen=True)
class Rows:
    """The rows `chosen` int64[n] (None: all, n = N) of features[N, D], a tensor in memory, mapped from a file
    or on a GPU. Chunks of them are on `device`."""

    features: Tensor
    device: torch.device
    chosen: Tensor | None = None

    @classmethod
    def of(cls, features: Tensor | Rows) -> Rows:
        """All rows of a tensor, on its own device; Rows as they are."""
        return features if isinstance(features, Rows) else cls(features, features.device)

    def __len__(self) -> int:
        return len(self.features if self.chosen is None else self.chosen)

    @property
    def dim(self) -> int:
        """D."""
        return self.features.shape[1]

    def select(self, rows: Tensor) -> Rows:
        """The rows int64[m] of these; no feature is copied."""
        chosen = rows if self.chosen is None else self.chosen[rows]
        return Rows(self.features, self.device, chosen.to(self.features.device))

    def part(self, part: slice) -> Tensor:
        """h[m, D] of a slice of these rows, on the device, in the type of the features."""
        rows = self.features[part] if self.chosen is None else self.features[self.chosen[part]]
        return rows.to(self.device)

    def parts(self, classes: int) -> Iterator[slice]:
        """Slices that together are all rows, for work that makes `classes` numbers of a row. Their length
        depends on D, `classes` and the kind of device alone, and so does the rounding of sums over them."""
        budget = CHUNK_BYTES.get(self.device.type, CHUNK_BYTES["cuda"])
        rows = min(MOST_ROWS, max(LEAST_ROWS, budget // (8 * (self.dim + 3 * classes))))
        for begin in range(0, len(self), rows):
            yield slice(begin, min(begin + rows, len(self)))


def place(features: Tensor, device: torch.device) -> Rows:
    """The rows of features[N, D] for work on `device`. They move to a GPU if they take at most ON_DEVICE of
    its free memory; else they stay and only chunks go there. The numbers are the same."""
    if device.type == "cuda" and not features.is_cuda:
        free, _ = torch.cuda.mem_get_info(device)
        if features.numel() * features.element_size() <= ON_DEVICE * free:
            features = features.to(device)
    return Rows(features, device)
