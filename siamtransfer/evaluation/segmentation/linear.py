"""The linear probe of patches: multinomial logistic regression, its strength chosen on held-out images.

Legend: n patches, D features, C classes, K classes that have a patch.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from siamtransfer.distributed.runtime import exact_matmul
from siamtransfer.evaluation.linear.logistic import LinearClassifier, LogisticRegression
from siamtransfer.evaluation.linear.rows import Rows, place
from siamtransfer.evaluation.segmentation.config import SegmentationConfig
from siamtransfer.evaluation.segmentation.probe import Patches
from siamtransfer.metrics.segmentation import SegmentationScores
from siamtransfer.utils.errors import UserError

_NEVER = -1e30
"""Score of a class without a train patch. It is finite, so that scores can be interpolated."""


@dataclass
class LinearProbe:
    """A linear classifier as a probe (PatchProbe); its outputs are the classes."""

    classifier: LinearClassifier
    outputs: int
    name: str = "linear"
    protocol: dict[str, Any] = field(default_factory=dict)

    def scores(self, features: Tensor) -> Tensor:
        """float32[n, C]: the logits; _NEVER for classes without a train patch."""
        logits = self.classifier.scores(features.to(self.classifier.weight.device))
        scores = logits.new_full((len(features), self.outputs), _NEVER, dtype=torch.float32)
        scores[:, self.classifier.classes] = logits.float()
        return scores

    def to(self, device: torch.device) -> LinearProbe:
        """The probe with its numbers on `device`."""
        own = self.classifier
        moved = LinearClassifier(
            own.mean.to(device),
            own.scale.to(device),
            own.weight.to(device),
            own.bias.to(device),
            own.classes.to(device),
            own.strength,
        )
        return replace(self, classifier=moved)

    def classes_of(self, counts: np.ndarray) -> None:
        """None: output k is class k."""


def fit_linear(train: Patches, config: SegmentationConfig, device: torch.device) -> list[LinearProbe]:
    """One probe. The strength of the highest mIoU of patches on held-out images is refitted on all of train;
    of equal ones the strongest penalty is taken.

    Raises:
        UserError: train has patches of one class only, or too few images to hold one out.
    """
    rows, labels = place(train.features, device), train.labels.to(device)
    if len(torch.unique(labels)) < 2:
        name = train.classes[int(labels[0])]
        raise UserError(
            f"a linear probe needs patches of two classes in train, and all are of {name!r}: "
            "leave linear out of --probe, or give images of more classes"
        )
    strengths = sorted(config.strengths)
    held_out: dict[float, float] = {}
    best = strengths[0]
    if len(strengths) > 1:
        held_out = _try_strengths(train, rows, labels, config)
        best = max(held_out, key=lambda strength: (held_out[strength], -strength))
    with exact_matmul():
        classifier, _ = LogisticRegression(
            rows, labels, standardise=config.standardise, dtype=torch.float32
        ).fit(best, max_steps=500, tolerance=1e-5)
    protocol = {
        "classifier": "multinomial logistic regression of patches, L-BFGS",
        "standardised": config.standardise,
        "chosen_strength": best,
        "strengths": strengths,
        **({"held_out_patch_miou": {f"{c:g}": round(v, 4) for c, v in held_out.items()}} if held_out else {}),
        **({"strength_chosen_on": f"{config.held_out:g} of the train images"} if held_out else {}),
        **({"chosen_at_edge": True} if held_out and best in (strengths[0], strengths[-1]) else {}),
    }
    return [LinearProbe(classifier, len(train.classes), protocol=protocol)]


def _try_strengths(
    train: Patches, rows: Rows, labels: Tensor, config: SegmentationConfig
) -> dict[float, float]:
    """The mIoU in percent of the patches of held-out images for every strength, from the strongest penalty;
    each fit starts from the one before."""
    fitted, held = split_by_image(train.images, config.held_out, config.seed)
    fitted, held = fitted.to(labels.device), held.to(labels.device)
    if len(torch.unique(labels[fitted])) < 2:
        raise UserError(
            "no strength can be chosen: without the held-out images train has patches of one class; give "
            "one --strengths, or more images"
        )
    problem = LogisticRegression(
        rows.select(fitted), labels[fitted], standardise=config.standardise, dtype=torch.float32
    )
    classes = len(train.classes)
    truth = labels[held]
    found, start = {}, None
    for strength in sorted(config.strengths):
        with exact_matmul():
            classifier, start = problem.fit(strength, start=start, max_steps=200, tolerance=1e-4)
        chosen = rows.select(held)
        predicted = torch.cat(
            [
                classifier.classes[classifier.scores(chosen.part(part)).argmax(dim=1)]
                for part in chosen.parts(classes)
            ]
        )
        counts = torch.bincount(truth * classes + predicted, minlength=classes**2).view(classes, classes)
        found[strength] = 100 * SegmentationScores.from_counts(counts.cpu().numpy()).miou
    return found


def split_by_image(images: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices int64 of patches (fitted, held out) for the image of every patch, int64[n]; patches of an image
    are on one side, and `fraction` of the images (at least one) is held out.

    Raises:
        UserError: there is one image only.
    """
    numbers = torch.unique(images).numpy()
    if len(numbers) < 2:
        raise UserError(
            "no strength can be chosen on a held-out image, as train has one image: give one --strengths"
        )
    held = min(max(1, round(fraction * len(numbers))), len(numbers) - 1)
    chosen = np.random.default_rng(seed).permutation(numbers)[:held]
    there = torch.isin(images, torch.from_numpy(chosen))
    return (~there).nonzero().flatten(), there.nonzero().flatten()
