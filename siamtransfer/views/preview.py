"""A picture of the network's input: one row a sample, first the image itself, then its views."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from siamtransfer.utils.captions import LINE, caption_font, fitted
from siamtransfer.utils.files import atomic_write
from siamtransfer.views.crop import centre_crop
from siamtransfer.views.dataset import Failure, ViewSet
from siamtransfer.views.pairs import pair_views, recipe_of_view
from siamtransfer.views.view_spec import Recipe

GAP = 2  # white pixels around every picture
HEAD = LINE + GAP  # pixels of the text above all rows
NARROWEST = 320  # pixels of a sheet, for names to be read
GREY, RED, BLACK = (190, 190, 190), (190, 30, 30), (0, 0, 0)


def write_preview(
    path: str | Path,
    views: ViewSet,
    *,
    count: int = 8,
    epoch: int = 0,
    name: Callable[[int], str] | None = None,
) -> list[Failure]:
    """Writes a PNG with `count` samples, taken evenly from the whole set, in the views of `epoch`.

    Each row is the image, as a centred square, and its views, augmented exactly as for training and without
    the normalisation; where the recipe mixes, the mixed views follow, for which rows 1 and 2, 3 and 4 and so
    on are partners. Above the row stands what `name` calls the image (by default its number). An image that
    cannot be read is grey, with its name and the reason in red, before the views of the image that replaces
    it. The PNG's text field `Description` holds the name of the recipe and the parameters of every view. Of
    images of other than three channels it shows the colours, or else the first one in grey.
    Returns the failures of images that could not be read.

    Raises:
        UserError: the file cannot be written.
    """
    recipe = views.recipe
    count = min(count, len(views))
    indices = np.linspace(0, len(views) - 1, count).round().astype(int).tolist()
    batch = views.__getitems__([(epoch, index) for index in indices])
    painted = pair_views(batch, recipe)
    pictures = painted if recipe.mix is None else painted[:-1]  # the last are the shares
    numbers = [v % len(recipe.views) for v in range(len(pictures))]  # mixed views follow the plain ones
    columns = [_shown(view, recipe_of_view(recipe, v)) for v, view in zip(numbers, pictures, strict=True)]
    side = max(view.size for view in recipe.views)
    originals, texts = [], []
    for index in indices:
        image, failures = views.read(index)
        called = f"image {index}" if name is None else name(index)
        texts.append((called, failures[0][1] if failures else None))
        if failures:
            grey = torch.tensor(GREY, dtype=torch.uint8)
            originals.append(grey.view(3, 1, 1).expand(3, side, side))
        else:
            originals.append(centre_crop(image, side, side)[_channels(recipe)])
    sheet = _sheet([torch.stack(originals), *columns], side)
    head = f"recipe {recipe.name}: each image, and its {len(recipe.views)} views"
    if recipe.mix is not None:
        head += f"; then mixed by {recipe.mix.kind} with those of the other row of a pair"
        head += " (a last row without a pair: with itself)" if len(indices) % 2 else ""
    _write_texts(sheet, head, texts, side)
    description = PngInfo()
    description.add_text("Description", "\n".join([f"recipe {recipe.name}", *recipe.describe()]))
    with atomic_write(path) as file:
        sheet.save(file, format="PNG", pnginfo=description)
    return batch.unreadable


def _channels(recipe: Recipe) -> list[int]:
    """The three channels that are shown: the colours, or else the first one as grey."""
    return list(recipe.rgb or (0, 0, 0))


def _shown(view: Tensor, recipe: Recipe) -> Tensor:
    """uint8[N,3,S,S] of a painted view, without its normalisation."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (recipe.mean, recipe.std))
    return (view * std + mean).mul(255).round().clamp(0, 255).byte()[:, _channels(recipe)]


def top_of(row: int, side: int) -> int:
    """The first line of pixels of the pictures in a row; its text stands above."""
    return HEAD + row * (LINE + side + GAP) + LINE


def _sheet(columns: list[Tensor], side: int) -> Image.Image:
    """The pictures uint8[B, 3, S, S] of every column, side by side, without text."""
    rows = len(columns[0])
    widths = [column.shape[-1] + GAP for column in columns]
    sheet = np.full((top_of(rows, side) - LINE, max(sum(widths) + GAP, NARROWEST), 3), 255, np.uint8)
    for row in range(rows):
        left, top = GAP, top_of(row, side)
        for column, width in zip(columns, widths, strict=True):
            picture = column[row].permute(1, 2, 0).numpy()
            sheet[top : top + len(picture), left : left + len(picture)] = picture
            left += width
    return Image.fromarray(sheet)


def _write_texts(sheet: Image.Image, head: str, texts: list[tuple[str, str | None]], side: int) -> None:
    """Writes the head, and above each row the name of its image; of an unreadable one also the reason."""
    draw, width = ImageDraw.Draw(sheet), sheet.width - 2 * GAP
    draw.text((GAP, GAP), fitted(head, width), BLACK, caption_font())
    for row, (called, why) in enumerate(texts):
        text = called if why is None else f"{called}: cannot be read ({why})"
        colour = BLACK if why is None else RED
        draw.text((GAP, top_of(row, side) - LINE), fitted(text, width), colour, caption_font())
