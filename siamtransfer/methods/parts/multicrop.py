"""Several crops of an image: two large (global) views first, then any number of small (local) ones.

SwAV (arXiv 2006.09882, section 3.2) introduced them; DINO uses them too. Targets are computed from the global
views, and every other view has to predict them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

GLOBALS = 2
"""Number of global views, which are the first ones."""


def encode(backbone: nn.Module, views: Sequence[Tensor]) -> Tensor:
    """Features h[V * N, D] of V views [N,3,S,S], view after view.

    Consecutive views of one size go through the backbone together, and share batch-norm statistics.
    """
    groups = itertools.groupby(views, key=lambda view: view.shape[-1])
    return torch.cat([backbone(torch.cat(list(group))) for _, group in groups])


def anchors_and_targets(views: int) -> list[tuple[int, int]]:
    """The pairs (v, i) of every view v with each global view i ≠ v; of two views (0, 1) and (1, 0)."""
    return [(v, i) for v in range(views) for i in range(GLOBALS) if i != v]


def cross_entropy_between_views(targets: Sequence[Tensor], predictions: Sequence[Tensor]) -> Tensor:
    """The mean over all pairs (i, v) with v ≠ i, and over the batch, of -Σ_k targets[i]_k predictions[v]_k.

    `targets` are probabilities [N,K] of the first views, `predictions` log-probabilities [N,K] of every view.
    """
    pairs = [
        -(target * prediction).sum(dim=1).mean()
        for i, target in enumerate(targets)
        for v, prediction in enumerate(predictions)
        if v != i
    ]
    return torch.stack(pairs).mean()
