"""What a probe of patches is: fitted to patches of the train split, it gives scores to any patch.

Legend: n patches, D features, C classes, K outputs of a probe.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Patches:
    """Sampled patches of a split.

    Attributes:
        features: float32[n, D], on the CPU.
        labels: int64[n], classes from 0 to C - 1; patches that are ignored are left out.
        images: int64[n], the index of the image of each patch, rising.
        classes: the names of the C classes; some may have no patch.
        shares: float32[n, C], the share of each class in the counted pixels of a patch; None where only
            `labels` are known.
    """

    features: Tensor
    labels: Tensor
    images: Tensor
    classes: tuple[str, ...]
    shares: Tensor | None = None


class PatchProbe(Protocol):
    """A fitted probe.

    Attributes:
        name: of its setting in the record, such as `linear` or `knn/k=20`.
        outputs: K; C where the outputs are the classes.
        protocol: what moves its numbers, for the record.
    """

    name: str
    outputs: int
    protocol: dict[str, Any]

    def scores(self, features: Tensor) -> Tensor:
        """float32[n, K] of float32[n, D], larger is better, all finite. The scores are enlarged bilinearly
        to the mask, and the largest one at a pixel is its output."""

    def classes_of(self, counts: np.ndarray) -> np.ndarray | None:
        """int64[K]: the class of every output, from the pixels int64[C, K] of the scored split by true class
        and output (the Hungarian matching of clusters); None where output k is class k."""
