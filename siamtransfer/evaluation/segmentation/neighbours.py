"""kNN segmentation: patches of the train images vote on the class of a patch.

This is the retrieval of Balažević et al. (arXiv 2306.01667): a bank of patches, each with the share of every
class in its pixels, and for a patch the mean share of its k nearest by cosine, weighted by
exp(cosine / temperature). The search is exact, that of `knn`.

Legend: n patches of the bank, Q queries, D features, C classes, k neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from siamtransfer.evaluation.knn.search import nearest
from siamtransfer.evaluation.knn.searchers import LocalSearch, SearchOptions
from siamtransfer.evaluation.knn.top import Neighbours
from siamtransfer.evaluation.knn.vote import sum_votes
from siamtransfer.evaluation.segmentation.config import SegmentationConfig
from siamtransfer.evaluation.segmentation.probe import Patches, PatchProbe
from siamtransfer.utils.errors import UserError

_ROWS = 2048  # queries whose votes are held at once


def fit_neighbours(train: Patches, config: SegmentationConfig, device: torch.device) -> list[PatchProbe]:
    """A probe for every `config.k`, named `knn/k=30`; all take their neighbours from one search.

    The bank is `train`, or `config.bank` patches of it; the search runs on `device`.

    Raises:
        UserError: the bank has fewer patches than the largest k, or there are fewer than `config.bank`.
    """
    sampled = bank_of(train, config.bank, config.balanced, config.seed)
    if len(sampled.labels) < max(config.k):
        raise UserError(
            f"--k {max(config.k)} is more than the {len(sampled.labels):,} patches of the bank: take a "
            "smaller --k, a larger --bank, or more train images or --patches-per-image"
        )
    bank = Bank(sampled, max(config.k), device, int(config.memory_budget * 2**30))
    protocol = {
        "bank": config.bank or "all that were drawn",
        "balanced": config.balanced,
        "labels": "majority" if sampled.shares is None else "shares of the pixels",
        "metric": "cosine",
        "temperature": config.temperature,
    }
    return [NeighbourProbe(bank, k, config.temperature, protocol) for k in dict.fromkeys(config.k)]


class Bank:
    """Patches with their classes, searched on a device.

    Attributes:
        classes: C.
    """

    def __init__(self, patches: Patches, most: int, device: torch.device, budget: int):
        self._rows = LocalSearch(patches.features.to(device), SearchOptions(budget=budget))
        self._labels = patches.labels.to(device)
        self._shares = None if patches.shares is None else patches.shares.to(device)
        self.classes, self._most, self._device = len(patches.classes), most, device
        self._last: tuple[Tensor, Neighbours] | None = None

    def neighbours(self, features: Tensor) -> Neighbours:
        """The `most` nearest of float[Q, D]. Asked again for the same tensor, it answers without a search."""
        if self._last is None or self._last[0] is not features:
            self._last = (features, nearest(self._rows, features.to(self._device), self._most))
        return self._last[1]

    def votes(self, weights: Tensor, indices: Tensor) -> Tensor:
        """float32[Q, C]: the mean shares of the neighbours indices[Q, k] with weights float64[Q, k]."""
        fractions = weights / weights.sum(dim=1, keepdim=True)
        if self._shares is None:
            return sum_votes(fractions, self._labels[indices], self.classes).float()
        return torch.einsum("qk,qkc->qc", fractions, self._shares[indices].double()).float()


class NeighbourProbe:
    """The vote of k neighbours; see `PatchProbe`."""

    def __init__(self, bank: Bank, k: int, temperature: float, protocol: dict[str, Any]):
        self.name, self.outputs = f"knn/k={k}", bank.classes
        self.protocol = {**protocol, "k": k}
        self._bank, self._k, self._temperature = bank, k, temperature

    def scores(self, features: Tensor) -> Tensor:
        """float32[Q, C], rows sum to 1: the votes for each class, on the device of `features`."""
        similarities, indices = (found[:, : self._k] for found in self._bank.neighbours(features))
        weights = ((similarities - similarities[:, :1]).double() / self._temperature).exp()
        votes = [
            self._bank.votes(w, i) for w, i in zip(weights.split(_ROWS), indices.split(_ROWS), strict=True)
        ]
        return torch.cat(votes).to(features.device)

    def classes_of(self, counts: np.ndarray) -> None:
        """None: output c is class c."""


def bank_of(patches: Patches, size: int | None, balanced: bool, seed: int) -> Patches:
    """`size` of the patches in their order (None: as many as there are), drawn without replacement.

    Balanced, every class (of `labels`) gets the same number of them; a class with fewer gives all, and the
    others share the rest. Without `size`, balanced takes of every class as many as the rarest class that has
    patches.

    Raises:
        UserError: there are fewer patches than `size`.
    """
    total = len(patches.labels)
    labels = patches.labels.numpy()
    if size is not None and size > total:
        raise UserError(
            f"--bank {size:,} is more than the {total:,} patches that were drawn: take a smaller one, or "
            "more train images or --patches-per-image"
        )
    if not balanced and size in (None, total):
        return patches
    random = np.random.default_rng(seed)
    order = random.permutation(total)
    if balanced:
        present = np.bincount(labels, minlength=len(patches.classes))
        wanted = int(present[present > 0].min()) * int((present > 0).sum()) if size is None else size
        quota = equal_parts(present.tolist(), wanted)
        chosen = np.concatenate([order[labels[order] == c][:n] for c, n in enumerate(quota)])
    else:
        chosen = order[:size]
    rows = torch.from_numpy(np.sort(chosen))
    return replace(
        patches,
        features=patches.features[rows],
        labels=patches.labels[rows],
        images=patches.images[rows],
        shares=None if patches.shares is None else patches.shares[rows],
    )


def equal_parts(available: Sequence[int], total: int) -> list[int]:
    """How many of each class make up `total`, none more than it has, all others equal to within one; what
    equal parts leave over goes to the classes that have most.

    `total` is at most the sum of `available`.
    """
    parts = [0] * len(available)
    left = total
    by_size = sorted(range(len(available)), key=lambda c: (available[c], -c))
    for position, c in enumerate(by_size):
        parts[c] = min(available[c], left // (len(by_size) - position))
        left -= parts[c]
    return parts
