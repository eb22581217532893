"""A picture of the network's input: one row a sample, first the image itself, then its views."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from siamtransfer.utils.files import atomic_write
from siamtransfer.views.crop import centre_crop
from siamtransfer.views.dataset import Failure, ViewSet, augment_batch

GAP = 2  # white pixels around every picture


def write_preview(path: str | Path, views: ViewSet, *, count: int = 8, epoch: int = 0) -> list[Failure]:
    """Writes a PNG with `count` samples, taken evenly from the whole set, in the views of `epoch`.

    Each row is the image, as a centred square, and its views, augmented exactly as for training and without
    the normalisation. The PNG's text field `Description` holds the name of the recipe and the parameters of
    every view. Of images of other than three channels it shows the colours, or else the first one in grey.
    Returns the failures of images that could not be read.

    Raises:
        UserError: the file cannot be written.
    """
    recipe = views.recipe
    count = min(count, len(views))
    indices = np.linspace(0, len(views) - 1, count).round().astype(int).tolist()
    batch = views.__getitems__([(epoch, index) for index in indices])
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (recipe.mean, recipe.std))
    shown = list(recipe.rgb or (0, 0, 0))
    columns = [
        (view * std + mean).mul(255).round().clamp(0, 255).byte()[:, shown]
        for view in augment_batch(batch, recipe)
    ]
    side = max(view.size for view in recipe.views)
    columns.insert(
        0, torch.stack([centre_crop(views.read(index)[0], side, side)[shown] for index in indices])
    )

    widths = [column.shape[-1] + GAP for column in columns]
    sheet = np.full((count * (side + GAP) + GAP, sum(widths) + GAP, 3), 255, np.uint8)
    for row in range(count):
        left = GAP
        for column, width in zip(columns, widths, strict=True):
            picture = column[row].permute(1, 2, 0).numpy()
            top = GAP + row * (side + GAP)
            sheet[top : top + len(picture), left : left + len(picture)] = picture
            left += width
    description = PngInfo()
    description.add_text("Description", "\n".join([f"recipe {recipe.name}", *recipe.describe()]))
    with atomic_write(path) as file:
        Image.fromarray(sheet).save(file, format="PNG", pnginfo=description)
    return batch.unreadable
