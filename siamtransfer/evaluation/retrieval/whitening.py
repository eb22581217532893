"""Whitening of descriptors, learnt on images that are neither queries nor searched.

Legend: N images, D numbers of a descriptor, d directions that are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from siamtransfer.data.pixel_form import PixelForm
from siamtransfer.distributed import collectives
from siamtransfer.evaluation.retrieval.config import DescriptorConfig, WhiteningRule
from siamtransfer.evaluation.retrieval.descriptors import DescriptorModel
from siamtransfer.evaluation.retrieval.sets import images_below
from siamtransfer.metrics.unit_rows import unit_rows
from siamtransfer.utils.errors import UserError

FLOOR = 1e-5
"""Of the largest eigenvalue; smaller ones are raised to it, as in DINO's code."""


@dataclass(frozen=True)
class Whitening:
    """x -> (x - mean) P, after rows of length one where `unit`; mean float64[D], P float64[D, d]."""

    mean: Tensor
    projection: Tensor
    unit: bool

    @classmethod
    def learn(cls, descriptors: Tensor, rule: WhiteningRule, dim: int | None = None) -> Whitening:
        """Learns it of descriptors float32[N, D]; the directions of largest eigenvalues are kept.

        `pca` takes rows of length one and the covariance. `dino` takes the rows as they are and their second
        moment about zero, although it centres what it is applied to: so does DINO's public code.

        Raises:
            UserError: there are not more images than directions.
        """
        kept = descriptors.shape[1] if dim is None else dim
        if kept > descriptors.shape[1]:
            raise UserError(
                f"--whitening-dim is {dim}, but descriptors have {descriptors.shape[1]} numbers only"
            )
        if len(descriptors) <= kept:
            raise UserError(
                f"a whitening of {kept} directions needs more images than {len(descriptors)}, for it would "
                "enlarge directions that none of them shows: add images, or give --whitening-dim "
                f"{len(descriptors) - 1} or less"
            )
        unit = rule == "pca"
        x = unit_rows(descriptors, torch.float64) if unit else descriptors.double()
        mean = x.mean(dim=0)
        about = x - mean if unit else x
        values, vectors = torch.linalg.eigh(about.T @ about / len(x))
        values = values.clamp(min=float(values[-1]) * FLOOR)
        order = values.argsort(descending=True, stable=True)[:kept]
        return cls(mean, vectors[:, order] / values[order].sqrt(), unit)

    def apply(self, descriptors: Tensor) -> Tensor:
        """float64[N, d] of descriptors [N, D]."""
        x = unit_rows(descriptors, torch.float64) if self.unit else descriptors.double()
        return (x - self.mean) @ self.projection


@dataclass(frozen=True)
class LearntWhitening:
    """A whitening, or none, and what a record says of it."""

    whitening: Whitening | None
    protocol: dict[str, Any] | None = None
    fingerprint: str | None = None

    def apply(self, descriptors: Tensor) -> Tensor:
        """The descriptors whitened, float64[N, d]; the same where there is none."""
        return descriptors if self.whitening is None else self.whitening.apply(descriptors)


def learn_whitening(model: DescriptorModel, config: DescriptorConfig, form: PixelForm) -> LearntWhitening:
    """The whitening that the options ask for, the same on every rank; its images are read in this form.

    Raises:
        UserError: the folder has no images or too few, or one cannot be read.
    """
    if config.whitening is None:
        return LearntWhitening(None)
    images, runtime = images_below(config.whitening, "--whitening", form), model.runtime
    mine = range(runtime.rank, len(images), runtime.world_size)
    what = "images for the whitening"
    with collectives.own_pace(f"describing the {what}"):
        blocks = list(model.blocks(images, mine, what, skip=config.skip_unreadable))
    described = {
        number: row
        for numbers, block in collectives.all_gather_object(blocks)
        for number, row in zip(numbers, block, strict=True)
    }
    if not described:
        raise UserError(f"--whitening: none of the {len(images)} images in {config.whitening} can be read")
    rows = torch.stack([described[number] for number in sorted(described)])
    protocol = {
        "rule": config.whitening_rule,
        "images": len(rows),
        "directions": config.whitening_dim or rows.shape[1],
        **({"unreadable": len(images) - len(rows)} if len(images) > len(rows) else {}),
    }
    learnt = Whitening.learn(rows, config.whitening_rule, config.whitening_dim)
    return LearntWhitening(learnt, protocol, images.fingerprint)
