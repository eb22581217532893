"""The kNN check of a run: the backbone on the labelled split, beside two baselines computed once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from siamtransfer.data.imageset import ImageSet
from siamtransfer.data.subset import Subset
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.knn.vote import knn_accuracies
from siamtransfer.features.extract import Transform, extract, extract_pixels


@dataclass
class KnnScorer:
    """Exact kNN of features of `test` among those of `bank`; leave-one-out where `test` is None.

    Attributes:
        bank_size: how many images of the bank to use, the first of a fixed shuffle; 0 for all.
    """

    bank: ImageSet
    test: ImageSet | None
    transform: Transform
    runtime: Runtime
    k: int
    temperature: float
    bank_size: int = 0
    workers: int = 0

    def __post_init__(self) -> None:
        order = np.random.Generator(np.random.Philox(0)).permutation(len(self.bank))
        size = min(self.bank_size or len(self.bank), len(self.bank))
        self._bank = Subset(self.bank, np.sort(order[:size]))
        self.k = min(self.k, size - (self.test is None))

    def score(self, backbone: nn.Module) -> dict[str, float]:
        """`knn/k=20/T=0.07/top1` and top5 of the backbone as it is; the same on every rank."""
        features = [
            extract(backbone, split, self.transform, self.runtime, workers=self.workers)
            for split in self._splits()
        ]
        return self._accuracies(features)

    def baselines(self, untrained: nn.Module) -> dict[str, float]:
        """The same numbers for raw pixels and for the backbone before training, under `baseline/…`."""
        of_pixels = self._accuracies(
            [extract_pixels(split, self.transform, workers=self.workers) for split in self._splits()]
        )
        of_untrained = self.score(untrained)
        return {f"baseline/pixels/{name}": value for name, value in of_pixels.items()} | {
            f"baseline/untrained/{name}": value for name, value in of_untrained.items()
        }

    @property
    def name(self) -> str:
        """The name of the top-1 number."""
        return f"knn/k={self.k}/T={self.temperature:g}/top1"

    @property
    def protocol(self) -> dict[str, object]:
        """What the numbers depend on, for the record."""
        test = self.test or self.bank
        return {
            "knn_bank": f"{self.bank.name}/{self.bank.split}",
            "knn_bank_images": len(self._bank),
            "knn_queries": f"{test.name}/{test.split}",
            "knn_leave_one_out": self.test is None,
            "knn_transform": vars(self.transform),
        }

    def _splits(self) -> list[Subset]:
        """The bank, and the queries where they are another split."""
        if self.test is None:
            return [self._bank]
        return [self._bank, Subset(self.test, np.arange(len(self.test)))]

    def _accuracies(self, features: list[Tensor]) -> dict[str, float]:
        device = self.runtime.device
        bank, queries = features[0].to(device), features[-1].to(device)
        labels = [torch.from_numpy(split.labels) for split in self._splits()]
        leave_out = torch.arange(len(bank), device=device) if self.test is None else None
        return knn_accuracies(
            bank, labels[0], queries, labels[-1], [self.k], [self.temperature], leave_out=leave_out
        )
