"""The kNN check of a run: the backbone on the labelled split, beside two baselines computed once.

No rank holds more than its share of the features and a block of all queries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from siamtransfer.data.imageset import ImageSet
from siamtransfer.data.subset import Subset
from siamtransfer.data.unreadable import UnreadableImages
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.knn.search import search_shares
from siamtransfer.evaluation.knn.searchers import SearchOptions
from siamtransfer.evaluation.knn.vote import top_accuracies
from siamtransfer.features.extract import Pass, Transform, extract_share, pixel_share, pixel_transform
from siamtransfer.features.readable import find_unreadable
from siamtransfer.metrics.unit_rows import unit_half_rows
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say

BANK_BYTES = 4 << 30  # of a bank in float32, over all ranks; a larger one is kept in half precision


@dataclass
class KnnScorer:
    """Exact kNN of features of `test` among those of `bank`; leave-one-out where `test` is None.

    Attributes:
        bank_size: how many images of the bank to use, the first of a fixed shuffle; 0 for all.
        bank_dtype: float16 keeps the bank's features scaled to length one and rounded to half precision.
        max_unreadable: share of the bank or of the queries that may be left out because it cannot be read.

    Images that cannot be read are looked for when one is met, said, and left out from then on. Every rank has
    its share of the bank and of the queries on the CPU, and searches its share of the bank for all queries.
    """

    bank: ImageSet
    test: ImageSet | None
    transform: Transform
    runtime: Runtime
    k: int
    temperature: float
    bank_size: int = 0
    workers: int = 0
    bank_dtype: Literal["float32", "float16"] = "float32"
    max_unreadable: float = 0.05

    def __post_init__(self) -> None:
        order = np.random.Generator(np.random.Philox(0)).permutation(len(self.bank))
        size = min(self.bank_size or len(self.bank), len(self.bank))
        self._bank = Subset(self.bank, np.sort(order[:size]))
        self._queries = None if self.test is None else Subset(self.test, np.arange(len(self.test)))
        self.k = min(self.k, size - (self.test is None))

    def score(
        self, backbone: nn.Module, *, between_chunks: Callable[[], None] | None = None
    ) -> dict[str, float]:
        """`knn/k=20/T=0.07/top1` and top5 of the backbone as it is; the same on every rank.

        `between_chunks` is called before every batch and every block of the search, equally often on every
        rank. What it raises (on all ranks alike) ends the check.
        """

        def share(split: Subset) -> Tensor:
            options = self._pass(f"kNN check, {split.split}", between_chunks)
            store = self._half_rows() if split is self._bank else None
            return extract_share(backbone, split, self.transform, options, store)

        return self._accuracies(self._shares(share), between_chunks)

    def baselines(
        self, start: nn.Module, called: str = "untrained", *, between_chunks: Callable[[], None] | None = None
    ) -> dict[str, float]:
        """The same numbers for raw pixels and for the backbone before training, under `baseline/pixels/` and
        `baseline/CALLED/`."""

        def share(split: Subset) -> Tensor:
            options = self._pass(f"pixel baseline, {split.split}", between_chunks)
            return pixel_share(split, self._pixel_transform(), options)

        of_pixels = self._accuracies(self._shares(share), between_chunks)
        of_start = self.score(start, between_chunks=between_chunks)
        return {f"baseline/pixels/{name}": value for name, value in of_pixels.items()} | {
            f"baseline/{called}/{name}": value for name, value in of_start.items()
        }

    @property
    def name(self) -> str:
        """The name of the top-1 number."""
        return f"knn/k={self.k}/T={self.temperature:g}/top1"

    @property
    def query_count(self) -> int:
        """How many images are scored."""
        return len(self._queries or self._bank)

    @property
    def protocol(self) -> dict[str, object]:
        """What the numbers depend on, for the record."""
        test = self.test or self.bank
        return {
            "knn_bank": f"{self.bank.name}/{self.bank.split}",
            "knn_bank_images": len(self._bank),
            "knn_queries": f"{test.name}/{test.split}",
            "knn_query_images": self.query_count,
            "knn_leave_one_out": self.test is None,
            "knn_bank_dtype": self.bank_dtype,
            "knn_transform": vars(self.transform),
            "knn_pixel_crop": self._pixel_transform().crop,
        }

    def _splits(self) -> list[Subset]:
        """The bank, and the queries where they are another split."""
        return [self._bank] if self._queries is None else [self._bank, self._queries]

    def _shares(self, share: Callable[[Subset], Tensor]) -> list[Tensor]:
        """What `share` computes of the bank and of the queries, without the images that cannot be read."""
        try:
            return [share(split) for split in self._splits()]
        except UserError:  # on every rank, whatever it was on one
            if not self._leave_out_unreadable():
                raise
            return [share(split) for split in self._splits()]

    def _leave_out_unreadable(self) -> bool:
        """Takes images that cannot be read out of bank and queries; whether there are any.

        Raises:
            UserError: they are more than `max_unreadable` of them.
        """
        self._bank, of_bank = self._readable(self._bank)
        of_queries = 0
        if self._queries is not None:
            self._queries, of_queries = self._readable(self._queries)
        self.k = min(self.k, len(self._bank) - (self.test is None))
        return of_bank + of_queries > 0

    def _readable(self, split: Subset) -> tuple[Subset, int]:
        """The images of a split that can be read, and the number of the others."""
        bad = find_unreadable(split, self.runtime, workers=self.workers)
        unreadable = UnreadableImages(len(split), self.max_unreadable)
        unreadable.add_all(bad)
        if not bad:
            return split, 0
        if self.runtime.is_main:
            say(f"kNN check: {unreadable.summary()}; the check is without them")
        kept = np.setdiff1d(np.arange(len(split)), [image.index for image in bad])
        return Subset(split.images, split.indices[kept]), len(bad)

    def _pixel_transform(self) -> Transform:
        images = sum(len(split) for split in self._splits())
        return pixel_transform(self.transform, images, len(self.transform.mean))

    def _pass(self, what: str, between_chunks: Callable[[], None] | None) -> Pass:
        return Pass(self.runtime, workers=self.workers, between_batches=between_chunks, what=what)

    def _half_rows(self) -> Callable[[Tensor], Tensor] | None:
        """Makes the bank's rows from features; None where they stay float32."""
        return unit_half_rows if self.bank_dtype == "float16" else None

    def _accuracies(
        self, shares: list[Tensor], between_chunks: Callable[[], None] | None
    ) -> dict[str, float]:
        """The numbers of the ranks' shares of the bank and, where they are others, of the queries."""
        labels = [torch.from_numpy(split.labels) for split in self._splits()]
        similarities, indices = search_shares(
            shares[0],
            shares[-1],
            self.k,
            sizes=(len(labels[0]), len(labels[-1])),
            leave_one_out=self.test is None,
            options=SearchOptions(between_chunks=between_chunks),
            runtime=self.runtime,
        )
        return top_accuracies(similarities, indices, labels[0], labels[-1], [self.k], [self.temperature])


def choose_bank_dtype(setting: str, images: int, dim: int) -> Literal["float32", "float16"]:
    """The type of a bank of `images` features of `dim` numbers: `setting`, or for `auto` float16 where
    float32 would take more than BANK_BYTES over all ranks."""
    if setting == "auto":
        return "float16" if 4 * images * dim > BANK_BYTES else "float32"
    return "float16" if setting == "float16" else "float32"
