"""Predictions of probes at the original size of the masks, and their counts of pixels.

Legend: H and W pixels of a mask, h and w cells of a map, D features, C classes, K outputs of a probe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from siamtransfer.distributed import collectives
from siamtransfer.evaluation.dense.model import DenseModel
from siamtransfer.evaluation.dense.windows import Place
from siamtransfer.evaluation.segmentation.patches import grid_of, rows_of
from siamtransfer.evaluation.segmentation.probe import PatchProbe
from siamtransfer.evaluation.segmentation.shares import patch_shares
from siamtransfer.features.progress import PassProgress
from siamtransfer.metrics.segmentation import PerImageCounts, count_image
from siamtransfer.segmentation.data.masked_images import MaskedImages, read_pair

ENLARGED_BYTES = 2**27  # of scores at the size of the mask, at once
Part = tuple[tuple[int, int], Place]
"""The grid (h, w) of a map, and the place of what it shows in the network's input."""


def predict(scores: Tensor, parts: Sequence[Part], size: tuple[int, int]) -> np.ndarray:
    """int64[H, W]: the output with the largest score at every pixel.

    Scores are enlarged bilinearly (align_corners false), some outputs at a time. Of equal scores the first
    counts. The scores of a single part go from its cells to the mask in one step. Those of several are
    enlarged to their places in the input, averaged there where they overlap, and go on to the mask, as in
    mmsegmentation's slide mode.

    Args:
        scores: float32[n, K] of the cells of all parts, part by part and row by row.
        parts: the grids and the places of the maps of the image.
        size: H and W of the mask.
    """
    place = parts[0][1]
    pixels = max(size[0] * size[1], place.height * place.width if len(parts) > 1 else 0)
    step = max(1, ENLARGED_BYTES // (4 * pixels))
    columns = scores.T
    best: Tensor | None = None
    output = torch.zeros(size, dtype=torch.int64, device=scores.device)
    for begin in range(0, len(columns), step):
        enlarged = _enlarge(columns[begin : begin + step], parts, size)
        value, index = enlarged.max(dim=0)
        if best is None:
            best, output = value, index
        else:
            output = torch.where(value > best, index + begin, output)
            best = torch.maximum(value, best)
    return output.cpu().numpy()


def _enlarge(scores: Tensor, parts: Sequence[Part], size: tuple[int, int]) -> Tensor:
    """float32[k, H, W] of scores[k, n]; see `predict`."""
    if len(parts) == 1:
        return _resized(scores.reshape(-1, *parts[0][0]), size)
    place = parts[0][1]
    total = scores.new_zeros(len(scores), place.height, place.width)
    count = scores.new_zeros(place.height, place.width)
    maps = scores.split([h * w for (h, w), _ in parts], dim=1)
    for values, (grid, there) in zip(maps, parts, strict=True):
        rows, columns = slice(there.top, there.bottom), slice(there.left, there.right)
        inner = (there.bottom - there.top, there.right - there.left)
        total[:, rows, columns] += _resized(values.reshape(-1, *grid), inner)
        count[rows, columns] += 1
    return _resized(total.div_(count), size)


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """maps[k, h, w] at another size."""
    return functional.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]


@dataclass
class OutputCounts:
    """The pixels of every image by true class and output of a probe, int64[p] columns of those that occur."""

    classes: int
    outputs: int
    images: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=list)

    def add(self, output: np.ndarray, mask: np.ndarray, ignore: int) -> None:
        """Counts output[H, W] against mask[H, W]."""
        counts = count_image(output, mask, max(self.classes, self.outputs), ignore)
        truth, found = np.nonzero(counts)
        self.images.append((truth, found, counts[truth, found]))

    def gather(self, indices: Sequence[int]) -> None:
        """Takes in the counts of all ranks, in the order of the images; `indices` are those of this rank."""
        pairs = collectives.all_gather_object(list(zip(indices, self.images, strict=True)))
        self.images = [counts for _, counts in sorted(pairs, key=lambda pair: pair[0])]

    def total(self) -> np.ndarray:
        """int64[C, K] of all images."""
        total = np.zeros((self.classes, self.outputs), np.int64)
        for truth, found, pixels in self.images:
            np.add.at(total, (truth, found), pixels)
        return total

    def per_image(self, classes_of: np.ndarray | None) -> PerImageCounts:
        """The counts by class; `classes_of` int64[K] is the class of every output, None where they are
        equal."""
        result = PerImageCounts(self.classes)
        for truth, found, pixels in self.images:
            counts = np.zeros((self.classes, self.classes), np.int64)
            np.add.at(counts, (truth, found if classes_of is None else classes_of[found]), pixels)
            result.add(counts)
        return result


@dataclass
class Scored:
    """A setting's counts by image, and its predictions of the shown images by index, as classes."""

    name: str
    protocol: dict[str, Any]
    per_image: PerImageCounts
    shown: dict[int, np.ndarray]


def score_probes(
    model: DenseModel,
    images: MaskedImages,
    probes: Sequence[PatchProbe],
    shown: Sequence[int],
    *,
    ceiling: bool = False,
) -> list[Scored]:
    """Scores all probes in one pass over the images; keeps the predictions of the `shown` ones. Ranks share
    the images, and each gets the counts of all.

    With `ceiling` the last setting is that of scores which are the true shares of the classes in every patch
    of the scored image itself.

    Raises:
        UserError: an image or a mask cannot be read, or a feature is not finite; where one rank raises, all
            do.
    """
    classes = len(images.classes)
    mine = range(model.runtime.rank, len(images), model.runtime.world_size)
    counts = [OutputCounts(classes, probe.outputs) for probe in probes]
    of_grid = OutputCounts(classes, classes)
    kept: list[dict[int, np.ndarray]] = [{} for _ in probes]
    progress = PassProgress(f"{images.name}/{images.split}", len(images), shown=model.runtime.is_main)
    with collectives.own_pace("scoring images"):
        for done, (index, views) in enumerate(model.views(images, mine), 1):
            _, mask = read_pair(images, index)
            parts, size = [(grid_of(view), view.place) for view in views], (mask.shape[0], mask.shape[1])
            rows = rows_of(views).contiguous()  # one tensor for all probes, as kNN keeps its neighbours
            for number, probe in enumerate(probes):
                output = predict(probe.scores(rows), parts, size)
                counts[number].add(output, mask, images.ignore)
                if index in shown:
                    kept[number][index] = output
            if ceiling:
                shares = [patch_shares(mask, grid, classes, images.ignore, place) for grid, place in parts]
                true = torch.from_numpy(np.concatenate(shares))
                of_grid.add(predict(true, parts, size), mask, images.ignore)
            progress.done(done * model.runtime.world_size)
    for each in [*counts, *([of_grid] if ceiling else [])]:
        each.gather(mine)
    kept = [dict(collectives.all_gather_object(list(each.items()))) for each in kept]
    scored = [_named(*each) for each in zip(probes, counts, kept, strict=True)]
    if ceiling:
        protocol = {"scores": "true shares of the classes in the pixels of every patch"}
        scored.append(Scored("ceiling", protocol, of_grid.per_image(None), {}))
    return scored


def _named(probe: PatchProbe, counts: OutputCounts, shown: dict[int, np.ndarray]) -> Scored:
    """The counts by class, where outputs may have to be matched with classes first."""
    classes_of = probe.classes_of(counts.total())
    if classes_of is not None:
        shown = {index: classes_of[output] for index, output in shown.items()}
    return Scored(probe.name, probe.protocol, counts.per_image(classes_of), shown)
