"""The choice of rate and weight decay on a held-out part of the training images.

SimSiam's authors searched the fine-tuning rate for every method and data set (arXiv 2011.10566, section 5);
they do not say on which images. Here the test images take no part in it.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from siamtransfer.detection.data.dataset_split import DetectionSplit
from siamtransfer.detection.data.datasets import DetectionData
from siamtransfer.utils.errors import UserError

SEED = 0  # of the split, the same for all weights and trials


@dataclass(frozen=True)
class SearchGrid:
    """rates and decays: the values to try; share: of the training images that is held out to score them."""

    rates: tuple[float, ...]
    decays: tuple[float, ...]
    share: float

    def cells(self) -> Iterator[tuple[float, float]]:
        for rate in self.rates:
            for decay in self.decays:
                yield rate, decay


def hold_out(data: DetectionData, share: float) -> DetectionData:
    """The training images split at random (always alike) into a smaller train part and a held-out test part.

    Raises:
        UserError: too few images to leave some on both sides.
    """
    kept, held = [], []
    for part in data.train_splits:
        order = list(part.records)
        random.Random(SEED).shuffle(order)
        count = round(share * len(order))
        if not 0 < count < len(order):
            raise UserError(
                f"{part.name} has {len(order)} images, of which {share:g} cannot be held out; choose another "
                "--held-out"
            )
        held += order[:count]
        kept.append(_part(part, order[count:], f"{part.name} without {share:g} held out", share))
    name = f"{share:g} of {'+'.join(part.name for part in data.train_splits)}, held out"
    return DetectionData(tuple(kept), _part(data.train_splits[0], held, name, share))


def with_cell(cfg: Any, rate: float, decay: float) -> Any:
    """A copy of `cfg` with the rate and the weight decay of a cell."""
    cfg = cfg.clone()
    cfg.SOLVER.BASE_LR, cfg.SOLVER.WEIGHT_DECAY = rate, decay
    return cfg


def _part(part: DetectionSplit, records: list[dict[str, Any]], name: str, share: float) -> DetectionSplit:
    fingerprint = hashlib.sha256(f"{part.fingerprint} {name} {share} {SEED}".encode()).hexdigest()
    return replace(part, name=name, records=records, fingerprint=fingerprint, remarks=())
