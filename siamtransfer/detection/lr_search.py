"""The choice of learning rate and weight decay on held-out training images.

SimSiam's authors searched the fine-tuning rate for every method and data set (arXiv 2011.10566, section 5);
they do not say on which images. Here the test images take no part in it.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from siamtransfer.detection.data.dataset_split import DetectionSplit, ImageRecord
from siamtransfer.detection.data.datasets import DetectionData
from siamtransfer.detection.layered_config import LayeredConfig
from siamtransfer.utils.errors import UserError

SEED = 0  # of the split, the same for all weights and trials
SGD_RATES = (0.01, 0.02, 0.04, 0.08)
_FACTORS = (0.5, 1.0, 2.0, 4.0)  # the spacing of SGD_RATES around 0.02, the rate of COCO's 1x


@dataclass(frozen=True)
class SearchGrid:
    """The values to try, and the fraction of the training images that is held out to score them."""

    lrs: tuple[float, ...]
    weight_decays: tuple[float, ...]
    held_out: float

    def cells(self) -> Iterator[tuple[float, float]]:
        """Every pair (lr, weight decay)."""
        for lr in self.lrs:
            for weight_decay in self.weight_decays:
                yield lr, weight_decay


def default_rates(layered: LayeredConfig, scale: float = 1.0) -> tuple[float, ...]:
    """The learning rates to try where none are given: SGD_RATES, and with AdamW, whose rates are smaller by
    orders, 0.5, 1, 2 and 4 times that of the configuration.

    `scale`: by which the configuration's rate is multiplied for another number of GPUs.

    Raises:
        UserError: the optimizer is AdamW, and the configuration states no rate.
    """
    optimizer = layered["SOLVER.OPTIMIZER"].value if "SOLVER.OPTIMIZER" in layered else "SGD"
    if optimizer == "SGD":
        return SGD_RATES
    rate = layered["SOLVER.BASE_LR"].value if "SOLVER.BASE_LR" in layered else None
    if isinstance(rate, bool) or not isinstance(rate, int | float) or rate <= 0:
        raise UserError(
            f"--search has no rates of {optimizer} to try, because SOLVER.BASE_LR is {rate!r}: give --lrs"
        )
    return tuple(float(f"{rate * scale * factor:.6g}") for factor in _FACTORS)


def hold_out(data: DetectionData, fraction: float) -> DetectionData:
    """The training images split at random, always alike, into fewer training images and held-out test images.

    Raises:
        UserError: a split has too few images to leave some on both sides.
    """
    kept, held = [], []
    for split in data.train_splits:
        order = list(split.records)
        random.Random(SEED).shuffle(order)
        count = round(fraction * len(order))
        if not 0 < count < len(order):
            raise UserError(
                f"{split.name} has {len(order)} images, of which {fraction:g} cannot be held out; choose "
                "another --held-out"
            )
        held += order[:count]
        kept.append(_subset(split, order[count:], f"{split.name} without {fraction:g} held out", fraction))
    name = f"{fraction:g} of {'+'.join(split.name for split in data.train_splits)}, held out"
    test_split = _subset(data.train_splits[0], held, name, fraction)
    return replace(data, train_splits=tuple(kept), test_split=test_split)


def _subset(split: DetectionSplit, records: list[ImageRecord], name: str, fraction: float) -> DetectionSplit:
    fingerprint = hashlib.sha256(f"{split.fingerprint} {name} {fraction} {SEED}".encode()).hexdigest()
    return replace(split, name=name, records=records, fingerprint=fingerprint, remarks=())
