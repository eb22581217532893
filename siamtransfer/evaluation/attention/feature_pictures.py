"""Feature maps as pictures: principal components in colour, and the similarity to a chosen patch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from siamtransfer.evaluation.attention.components import (
    TAILS,
    colours,
    fit_components,
    foreground,
    patch_of_pixel,
    similarity,
)
from siamtransfer.evaluation.attention.config import AttentionConfig
from siamtransfer.evaluation.attention.jaccard import enlarge
from siamtransfer.evaluation.attention.network import Network
from siamtransfer.evaluation.attention.subjects import Subjects
from siamtransfer.evaluation.dense.input_size import InputSize, batches
from siamtransfer.evaluation.dense.sheet import Cell, Findings, Scale, Sheet, coloured, with_cross
from siamtransfer.utils.captions import short_name
from siamtransfer.utils.errors import UserError


@dataclass(frozen=True)
class ShownMaps:
    """The shown images and their maps [C, h, w] of one selection of layers."""

    indices: list[int]
    maps: list[Tensor]
    subjects: Subjects
    head: str

    def image(self, row: int) -> np.ndarray:
        """The image of a row."""
        return self.subjects.images.image(self.indices[row])

    def first_cell(self, row: int) -> Cell:
        """The image with its name."""
        return Cell(self.image(row), short_name(self.subjects.images.describe(self.indices[row])))


def compute_maps(network: Network, subjects: Subjects, size: InputSize, config: AttentionConfig) -> ShownMaps:
    """The maps of the shown images.

    Raises:
        UserError: there is no such layer, or an image cannot be read.
    """
    part = network.maps(config.layers)
    indices = subjects.spread(config.pictures)
    maps: list[Tensor] = []
    for _, _, pixels in batches(subjects.images, indices, size, config.forward_batch_size):
        maps += network.run(part, pixels)
    return ShownMaps(indices, maps, subjects, f"{network.source}, {'+'.join(part.layers)}, {subjects.name}")


def show_components(shown: ShownMaps, config: AttentionConfig) -> Findings:
    """The sheet pca.png, and the shares of the variance in percent.

    Raises:
        UserError: there are too few patches, or all are equal.
    """
    groups = [[row] for row in range(len(shown.maps))]
    if config.pca == "joint":
        groups = [[row for group in groups for row in group]]
    cells = [[shown.first_cell(row)] for row in range(len(shown.maps))]
    explained = []
    for group in groups:
        maps = [shown.maps[row] for row in group]
        components = fit_components(maps)
        explained.append(components.explained)
        pictures = [colours([components.project(m) for m in maps])]
        if config.pca_foreground:
            chosen = foreground(maps, components, invert=config.pca_invert)
            inner = fit_components(maps, chosen)
            pictures.append(colours([inner.project(m) for m in maps], chosen))
        for name, row_pictures in zip(("components", "foreground"), pictures, strict=False):
            for row, picture in zip(group, row_pictures, strict=True):
                at_image_size = enlarge(picture.numpy(), *shown.image(row).shape[:2])
                cells[row].append(Cell(np.ascontiguousarray(at_image_size.transpose(1, 2, 0)), name))
    shares = 100 * torch.stack(explained).mean(dim=0)
    metrics = {f"pca/explained/{n}": float(share) for n, share in enumerate(shares, 1)}
    protocol: dict[str, object] = {"pca": config.pca, "layers": config.layers, "patches_of": len(cells)}
    return Findings(metrics, protocol, {"pca.png": Sheet(_component_lines(shown.head, config), cells)}, {})


def _component_lines(head: str, config: AttentionConfig) -> list[str]:
    whose = "all images together" if config.pca == "joint" else "each image alone"
    low, high = (f"{100 * tail:g} %" for tail in TAILS)
    lines = [
        head,
        f"red, green, blue: the first three principal components of the patches of {whose};",
        f"the {low} and {high} quantiles of a component over the same patches are dark and bright",
    ]
    if config.pca_foreground:
        side = "more" if config.pca_invert else "less"
        lines.append(
            f"foreground: the side of the first component that touches the border {side}; components anew"
        )
    return lines


def show_similarity(shown: ShownMaps, config: AttentionConfig) -> Findings:
    """The sheet similarity.png.

    Raises:
        UserError: there is no such image or pixel.
    """
    assert config.patch is not None
    row = config.patch_image - 1
    if row >= len(shown.maps):
        raise UserError(f"--patch-image is {config.patch_image}, and {len(shown.maps)} images are shown")
    image, features = shown.image(row), shown.maps[row]
    height, width = image.shape[:2]
    x, y = config.patch
    place = patch_of_pixel(x, y, (height, width), (features.shape[1], features.shape[2]))
    values = similarity(shown.maps, features[:, place[0], place[1]])
    low, high = min(float(v.min()) for v in values), max(float(v.max()) for v in values)
    cells = []
    for number, value in enumerate(values):
        picture = shown.image(number)
        smooth = functional.interpolate(value[None, None], size=picture.shape[:2], mode="bilinear")
        first = shown.first_cell(number)
        if number == row:
            first = Cell(with_cross(picture, x, y), first.caption, True)
        cells.append([first, Cell(coloured(smooth[0, 0].numpy(), low, high), "cosine")])
    lines = [shown.head, f"similarity to the patch of the pixel ({x}, {y}), bilinear; one scale for all"]
    sheet = Sheet(lines, cells, Scale(low, high, "cosine"))
    name = shown.subjects.images.describe(shown.indices[row])
    where = {"layers": config.layers, "pixel": [x, y], "image": name, "patch": list(place)}
    return Findings({}, {}, {"similarity.png": sheet}, {"similarity": where})
