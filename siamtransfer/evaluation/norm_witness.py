"""Which reading of a file explains the statistics that its batch norms kept from training.

A batch norm keeps the mean and the variance of each channel in training. Under the right reading
(normalisation, order of channels, stride, padding, pooling, dilation), images like those of the training give
about the same statistics; under a wrong one they do not. Images of another kind move the statistics under
every reading, so readings are compared with each other and never with a threshold alone.

The answer is a hint and no proof: docs/WITNESS.md has its measured power and false alarms for each kind of
reading, and what it cannot see. `explain` makes the whole table, `warn_if_unlikely` tries a few readings
before an evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from siamtransfer.checkpoints.read_backbone import ReadBackbone
from siamtransfer.evaluation.norm_candidates import KINDS, Kind, candidates, in_use
from siamtransfer.evaluation.norm_statistics import (
    Measurement,
    measure,
    random_crops,
    trained_norms,
)
from siamtransfer.features.extract import Images
from siamtransfer.utils.log import say
from siamtransfer.views.config import ViewsConfig

CROPS = 64
"""Crops that `explain` looks at."""
WARNING_CROPS, WARNING_SIDE = 16, 96
"""Crops that a warning looks at, and their largest side in pixels."""
ROUNDS = 3
"""The largest number of changes to a reading that are tried together."""
FIRST_ALARM, ALARM, GEOMETRY_ALARM = 3.0, 2.0, 4.0
"""A reading is unlikely when another one is closer to the training by more than these factors: another
normalisation by FIRST_ALARM at the first batch norm and by ALARM over all, another geometry (stride, stem,
dilation) alone by GEOMETRY_ALARM over those that it concerns."""
AGREEMENT = 0.9
"""The smallest fraction of the batch norms concerned that have to be closer under another geometry."""
FOREIGN, SIMILAR = 0.3, 0.15
"""Divergences at the first batch norm: from FOREIGN upwards under every reading, the images are unlike those
of the training; up to SIMILAR they are like them enough to tell one geometry from another."""
WORTHWHILE = 1.3
"""The smallest factor by which a change has to be closer for further changes to be tried together with it."""


@dataclass(frozen=True)
class WitnessReport:
    """What the batch norms tell of a file.

    Attributes:
        measurements: of all readings that were tried, the closest first; empty where nothing can be told.
        reason: why nothing can be told; None where something can.
        crops: the number of crops that were looked at.
    """

    measurements: tuple[Measurement, ...] = ()
    reason: str | None = None
    crops: int = 0

    @property
    def best(self) -> Measurement:
        """The reading that explains the statistics best, of those in the order of channels in use: batch
        norms hardly tell the order, so it is in the table but is never suggested."""
        return next(row for row in self.measurements if "channels" not in row.candidate.changes)

    @property
    def in_use(self) -> Measurement:
        """The file as it is read."""
        return next(row for row in self.measurements if not row.candidate.changes)

    @property
    def factor(self) -> float:
        """How many times further from the statistics of training the reading in use is than the best one; 1
        if it is the best, or if nothing can be told."""
        return 1.0 if self.reason else self.in_use.factor(self.best)

    @property
    def foreign(self) -> bool:
        """Whether the images are unlike those of the training under every reading."""
        return self.reason is None and min(row.first for row in self.measurements) > FOREIGN

    @property
    def unlikely(self) -> bool:
        """Whether the reading in use is probably wrong: the images are like those of the training, and the
        best reading is much closer to it.

        Another normalisation has to be much closer at the first batch norm, because later ones magnify a
        difference between two kinds of images. Another geometry has to be closer at nearly all batch norms
        that it concerns.
        """
        if self.reason is not None or self.foreign:
            return False
        here, best = self.in_use, self.best
        if "normalisation" in best.candidate.changes:
            closer = self.factor > ALARM and here.first > FIRST_ALARM * best.first
            return closer and best.first < FOREIGN
        agreed = here.agreement(best) >= AGREEMENT
        return self.factor > GEOMETRY_ALARM and agreed and best.first < SIMILAR

    @property
    def undecided(self) -> list[str]:
        """The other readings that explain the statistics about as well as the best one does."""
        others = [row for row in self.measurements if row is not self.best]
        return [row.candidate.label for row in others if row.factor(self.best) < ALARM]

    def verdict(self) -> str:
        """What the batch norms tell, in a sentence."""
        if self.reason:
            return self.reason
        if self.unlikely:
            change = self.best.candidate
            return (
                f"this reading is unlikely: with {change.label} the batch norms' input is {self.factor:.3g} "
                f"times closer to what they kept from training; if that is right, add {change.flags}"
            )
        if self.foreign:
            return (
                "under every reading the batch norms' input differs from that in training: these images are "
                "too far from those of the training to tell"
            )
        return "the batch norms do not contradict this reading"

    def table(self) -> list[str]:
        """The lines of a table: each reading, its divergence at the first batch norm and over all of them,
        how many times further from the training it is than the reading in use; then the verdict."""
        if self.reason:
            return [self.reason]
        lines = [f"{'reading':40}{'first norm':>12}{'mean of all':>13}{'times as read':>15}"]
        lines += [
            f"{row.candidate.label:40}{row.first:12.3g}{row.mean:13.3g}{row.factor(self.in_use):15.3g}"
            for row in self.measurements
        ]
        lines.append(self.verdict())
        others = "; ".join(label for label in self.undecided if label != "as read")
        if others:
            lines.append(f"hardly told from the best: {others}")
        lines.append(
            f"measured with {self.crops} random crops; no batch norm tells the number of attention heads"
        )
        return lines

    def as_dict(self) -> dict[str, Any]:
        """For records."""
        if self.reason:
            return {"reason": self.reason}
        return {
            "crops": self.crops,
            "factor": self.factor,
            "unlikely": self.unlikely,
            "best": self.best.candidate.label,
            "readings": {
                row.candidate.label: {"first": row.first, "mean": row.mean, "score": row.score}
                for row in self.measurements
            },
        }


def explain(
    read: ReadBackbone,
    images: Images,
    *,
    side: int | None = None,
    crops: int = CROPS,
    kinds: Sequence[Kind] = KINDS,
    rounds: int = ROUNDS,
    device: torch.device | str = "cpu",
) -> WitnessReport:
    """Compares readings of a file by the statistics of its batch norms.

    All single changes of the reading are tried, then those of the best one, up to `rounds` changes together.

    Args:
        read: the backbone as it is read.
        images: a set that is like the images of the training; a few photographs are enough.
        side: side in pixels of the crops; by default as in pretraining, as the images, or 224.
        crops: random crops of the images, several of each where there are fewer images.
        kinds: the kinds of change that are tried.
        rounds: see above.
        device: where the network computes.

    Raises:
        UnreadableImage: an image cannot be read.
    """
    if not trained_norms(read.state):
        return WitnessReport(reason=_why_nothing(read))
    if len(images) == 0:
        return WitnessReport(reason="there are no images to compare readings with")
    views = random_crops(images, crops, side or usual_side(read, images))
    measure_views = partial(measure, state=read.state, crops=views, device=device)
    rows = {"as read": measure_views(in_use(read))}
    for _ in range(rounds):
        best = min(rows.values(), key=lambda row: row.score)
        for candidate in candidates(read, best.candidate, kinds):
            if candidate.label not in rows:
                rows[candidate.label] = measure_views(candidate)
        if best.factor(min(rows.values(), key=lambda row: row.score)) < WORTHWHILE:
            break
    return WitnessReport(tuple(sorted(rows.values(), key=lambda row: row.score)), crops=len(views))


def warn_if_unlikely(
    read: ReadBackbone,
    images: Images,
    *,
    side: int | None = None,
    device: torch.device | str = "cpu",
) -> WitnessReport:
    """Prints a warning where the batch norms contradict the reading; returns the report, for the record.

    It is cheap: few and small crops, one round, and beside normalisations only the kinds that neither the
    file nor its format fixes. Dilation, which is slow to try and hardly told, is left to `explain`.

    Raises:
        UnreadableImage: an image cannot be read.
    """
    kinds: list[Kind] = [
        kind
        for kind in KINDS
        if kind == "normalisation" or (kind != "output_stride" and _is_open(read, kind))
    ]
    side = min(side or usual_side(read, images), WARNING_SIDE)
    report = explain(read, images, side=side, crops=WARNING_CROPS, kinds=kinds, rounds=1, device=device)
    if report.unlikely:
        say(f"warning: {read.path}: {report.verdict()} (siamtransfer identify --images has the whole table)")
    return report


def usual_side(read: ReadBackbone, images: Images) -> int:
    """The side in pixels of the views in pretraining, where our own checkpoint records it; else that of
    images of one size, else 224."""
    recorded = (read.meta.get("config") or {}).get("views")
    if recorded:
        return ViewsConfig.from_dict(recorded).build().views[0].size
    return getattr(images, "image_size", None) or 224


def _is_open(read: ReadBackbone, kind: Kind) -> bool:
    """Whether a kind of reading is assumed or the user's word."""
    fact = getattr(read.reading, kind)
    return fact is not None and (fact.assumed or fact.source.startswith("--"))


def _why_nothing(read: ReadBackbone) -> str:
    if not any(name.endswith("running_mean") for name in read.state):
        return f"{read.name} has no batch norm, which would have kept statistics of the images in training"
    return "the batch norms have initial statistics, or these were folded away: nothing is kept of a training"
