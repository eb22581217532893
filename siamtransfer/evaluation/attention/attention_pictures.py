"""Attention maps of every head as pictures and as masks, and their Jaccard index on a set with masks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from siamtransfer.evaluation.attention.config import AttentionConfig
from siamtransfer.evaluation.attention.jaccard import (
    ImageJaccard,
    JaccardScores,
    enlarge,
    head_masks,
    jaccard,
)
from siamtransfer.evaluation.attention.network import Network
from siamtransfer.evaluation.attention.subjects import Subjects
from siamtransfer.evaluation.dense.input_size import InputSize, batches
from siamtransfer.evaluation.dense.sheet import Cell, Findings, Scale, Sheet, coloured, outside_dimmed
from siamtransfer.records.sample_values import SampleValues
from siamtransfer.segmentation.data.masked_images import MaskedImages, read_pair
from siamtransfer.utils.captions import short_name
from siamtransfer.utils.log import say

ENDS = (0.005, 0.995)  # quantiles of all shown maps that get the first and the last colour
BACKGROUND = "background"
SAY_EVERY = 500  # images


class ShownAttention(NamedTuple):
    """What a row of the pictures is made of: the number of the image, attention float32[heads, h, w], and the
    Jaccard indices if there is a truth."""

    number: int
    attention: Tensor
    scores: ImageJaccard | None


def show_attention(
    network: Network, subjects: Subjects, size: InputSize, config: AttentionConfig
) -> Findings:
    """The sheets attention.png and masks.png; on a set with masks also the Jaccard index of all its images.

    Raises:
        UserError: an image or a mask cannot be read.
    """
    part = network.attention(config.block)
    shown_indices = set(subjects.spread(config.pictures))
    indices = list(range(len(subjects.images))) if subjects.masks else sorted(shown_indices)
    background = background_of(subjects.masks)
    scores = JaccardScores(background is not None)
    shown: list[ShownAttention] = []
    for numbers, _, pixels in batches(subjects.images, indices, size, config.forward_batch_size):
        for index, attention in zip(numbers, network.run(part, pixels), strict=True):
            found = None
            if subjects.masks is not None:
                found = _score(subjects.masks, index, attention, pixels.shape[2:], background, config)
                scores.add(index, found)
            if index in shown_indices:
                shown.append(ShownAttention(index, attention, found))
            if (index + 1) % SAY_EVERY == 0 and subjects.masks is not None:
                say(f"attention: {index + 1} of {len(indices)} images")
    head = f"{network.source}, block {part.block}, {subjects.name}"
    sheets = {
        "attention.png": _attention_sheet(shown, subjects, head),
        "masks.png": _mask_sheet(shown, subjects, head, config),
    }
    by_image = scores.by_image()
    return Findings(
        scores.metrics(),
        _protocol(subjects, scores, config),
        sheets,
        {"block": part.block},
        SampleValues(np.array(scores.images), by_image) if by_image else None,
    )


def background_of(masks: MaskedImages | None) -> int | None:
    """The number of the class `background`; None where there is none."""
    names = [name.lower() for name in masks.classes] if masks else []
    return names.index(BACKGROUND) if BACKGROUND in names else None


def _score(
    masks: MaskedImages,
    index: int,
    attention: Tensor,
    input_sides: torch.Size,
    background: int | None,
    config: AttentionConfig,
) -> ImageJaccard:
    _, truth = read_pair(masks, index)
    if config.score_at == "input":
        truth = enlarge(truth, *input_sides)
    heads = enlarge(head_masks(attention, config.mass).numpy(), *truth.shape)
    return jaccard(heads, truth, masks.ignore, background, config.void)


def _attention_sheet(shown: list[ShownAttention], subjects: Subjects, head: str) -> Sheet:
    """A row for each image: the image, the mean of the heads, every head, in units of the uniform map."""
    relative = [row.attention * row.attention[0].numel() for row in shown]
    everything = np.concatenate([maps.flatten().numpy() for maps in relative])
    low, high = (float(end) for end in np.quantile(everything, ENDS))
    rows = []
    for row, maps in zip(shown, relative, strict=True):
        image = subjects.images.image(row.number)
        cells = [Cell(image, short_name(subjects.images.describe(row.number)))]
        for name, values in _with_mean(maps):
            smooth = functional.interpolate(values[None, None], size=image.shape[:2], mode="bilinear")
            cells.append(Cell(coloured(smooth[0, 0].numpy(), low, high), name))
        rows.append(cells)
    what = f"times the uniform attention: {100 * ENDS[0]:g} and {100 * ENDS[1]:g} % of all shown patches"
    lines = [head, "attention of the class token to the patches, bilinear; one scale of colours for all"]
    return Sheet(lines, rows, Scale(low, high, what))


def _mask_sheet(shown: list[ShownAttention], subjects: Subjects, head: str, config: AttentionConfig) -> Sheet:
    """A row for each image: the image, the objects, the masks; with a truth, the Jaccard index and a frame
    round the best head."""
    rows = []
    for row in shown:
        image = subjects.images.image(row.number)
        cells = [Cell(image, short_name(subjects.images.describe(row.number)))]
        values = row.scores.foreground if row.scores else None
        if subjects.masks is not None:
            truth = subjects.masks.mask(row.number)
            background = background_of(subjects.masks)
            inside = truth != subjects.masks.ignore
            inside &= truth != background if background is not None else True
            cells.append(Cell(outside_dimmed(image, inside), "objects"))
        masks = enlarge(head_masks(row.attention, config.mass).numpy(), *image.shape[:2])
        best = int(values[:-1].argmax()) if values is not None else -1
        for number, mask in enumerate(masks):
            name = "mean" if number == len(masks) - 1 else f"head {number + 1}"
            score = f": {100 * values[number]:.0f} %" if values is not None else ""
            cells.append(Cell(outside_dimmed(image, mask), name + score, number == best))
        rows.append(cells)
    lines = [head, f"the patches that hold {100 * config.mass:g} % of a head's attention to the patches"]
    if subjects.masks is not None:
        lines.append("per cent: Jaccard index with all objects as one; green: the best head of the image")
    return Sheet(lines, rows)


def _with_mean(maps: Tensor) -> list[tuple[str, Tensor]]:
    named = [("mean", maps.mean(dim=0))]
    return named + [(f"head {number}", values) for number, values in enumerate(maps, 1)]


def _protocol(subjects: Subjects, scores: JaccardScores, config: AttentionConfig) -> dict[str, object]:
    protocol: dict[str, object] = {"block": config.block or "last", "mass": config.mass}
    if subjects.masks is None:
        return protocol
    return protocol | {
        "jaccard": {
            "images": len(scores.best_per_object),
            "images_without_objects": scores.empty,
            "objects": scores.objects,
            "object": "a class that is in the truth of an image, other than background and ignored",
            "best-head-of-object": "mean over the objects of an image, then over the images",
            "best-head-of-set": "chosen on the scored images",
            "masks": "of patches, each pixel takes its patch's value",
            "scored_at": config.score_at,
            "void": config.void,
            "interval": "95 %, Student's t over the images",
        }
    }
