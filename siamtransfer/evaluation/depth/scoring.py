"""Predicted depths at the original size of the depth maps, and their errors.

Legend: H and W pixels of an image, h and w cells of a map, D features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from siamtransfer.evaluation.dense.model import DenseModel
from siamtransfer.evaluation.depth.data.check import DepthReport
from siamtransfer.evaluation.depth.data.depth_images import DepthImages, MirroredImages
from siamtransfer.evaluation.depth.probe import DepthProbe
from siamtransfer.metrics.depth import DepthRange, ImageDepthScores
from siamtransfer.utils.errors import UserError

EIGEN_SIZE = (480, 640)
EIGEN_ROWS, EIGEN_COLUMNS = slice(45, 471), slice(41, 601)
"""Of Eigen et al. for NYU, as the public evaluations of BTS and AdaBins have it."""
MEAN_DEPTH, MEAN_MAP = "mean-depth", "mean-map"
"""Guesses without a look at the image: the mean depth of train, and its mean depth at each place."""


@dataclass(frozen=True)
class ScoringRule:
    """Which pixels count: depths inside `depths`, in the Eigen crop with `eigen`. With `flip` a prediction
    is the mean of that for the image and of that for the mirrored image, mirrored back."""

    depths: DepthRange
    eigen: bool = False
    flip: bool = True

    def counted(self, depth: np.ndarray, where: str) -> np.ndarray:
        """bool[H, W] of a depth map[H, W].

        Raises:
            UserError: the Eigen crop is asked for and the map, which `where` names, has another size.
        """
        valid = self.depths.valid(depth)
        if not self.eigen:
            return valid
        if depth.shape != EIGEN_SIZE:
            raise UserError(
                f"the Eigen crop is of images of {EIGEN_SIZE[1]} x {EIGEN_SIZE[0]} pixels, and {where} has "
                f"{depth.shape[1]} x {depth.shape[0]}: give --eval-crop none"
            )
        inside = np.zeros_like(valid)
        inside[EIGEN_ROWS, EIGEN_COLUMNS] = True
        return valid & inside


@dataclass
class ScoredDepth:
    """A setting's errors by image, and its predictions float32[H, W] of the shown images by index."""

    name: str
    protocol: dict[str, Any] = field(default_factory=dict)
    scores: ImageDepthScores = field(default_factory=ImageDepthScores)
    shown: dict[int, np.ndarray] = field(default_factory=dict)


def enlarge(depth: Tensor, size: tuple[int, int]) -> np.ndarray:
    """float32[H, W] of depths[h, w], bilinear (align_corners false)."""
    enlarged = functional.interpolate(
        depth[None, None].float(), size=size, mode="bilinear", align_corners=False
    )
    return enlarged[0, 0].cpu().numpy()


def score_probes(
    model: DenseModel,
    images: DepthImages,
    probes: Sequence[DepthProbe],
    rule: ScoringRule,
    shown: Sequence[int],
) -> list[ScoredDepth]:
    """Scores all probes in one pass over the images; keeps the predictions of the `shown` ones.

    Raises:
        UserError: an image or a depth map cannot be read, no pixel of any image counts, or a prediction is
            not finite.
    """
    scored = [ScoredDepth(probe.name, probe.protocol) for probe in probes]
    for index, features, mirrored in _maps(model, images, rule.flip):
        truth = images.depth(index)
        counted = rule.counted(truth, images.describe_depth(index))
        for probe, result in zip(probes, scored, strict=True):
            predicted = enlarge(probe.depth(features), truth.shape)
            if mirrored is not None:
                predicted = (predicted + enlarge(probe.depth(mirrored), truth.shape)[:, ::-1]) / 2
            predicted = np.clip(predicted, rule.depths.low, rule.depths.high)
            result.scores.add(index, predicted, truth, counted)
            if index in shown:
                result.shown[index] = predicted
    if not scored[0].scores.scores:
        raise UserError(
            f"no pixel of {images.name}/{images.split} counts: look at its depth maps, --min-depth, "
            f"--max-depth and --eval-crop"
        )
    return scored


def _maps(model: DenseModel, images: DepthImages, flip: bool) -> Iterator[tuple[int, Tensor, Tensor | None]]:
    """(index, map of the image, map of the mirrored image or None) of every image."""
    everything = range(len(images))
    if not flip:
        for index, features in model.maps(images, everything):
            yield index, features, None
        return
    both = zip(model.maps(images, everything), model.maps(MirroredImages(images), everything), strict=True)
    for (index, features), (_, mirrored) in both:
        yield index, features, mirrored


def score_guesses(images: DepthImages, train: DepthReport, rule: ScoringRule) -> list[ScoredDepth]:
    """The errors of MEAN_DEPTH and MEAN_MAP.

    Raises:
        UserError: a depth map cannot be read.
    """
    maps = {MEAN_DEPTH: np.full((1, 1), train.mean), MEAN_MAP: train.mean_map}
    scored = [ScoredDepth(name) for name in maps]
    enlarged: dict[tuple[int, ...], list[np.ndarray]] = {}
    for index in range(len(images)):
        truth = images.depth(index)
        if truth.shape not in enlarged:
            enlarged[truth.shape] = [enlarge(torch.from_numpy(guess), truth.shape) for guess in maps.values()]
        counted = rule.counted(truth, images.describe_depth(index))
        for result, predicted in zip(scored, enlarged[truth.shape], strict=True):
            result.scores.add(index, predicted, truth, counted)
    return scored
