"""Pictures of masks: every class has a colour of its own, laid over the image without its colours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from siamtransfer.utils.files import atomic_write

GAP, LINE = 6, 16
SIDES = (160, 400)  # the shorter side is enlarged to the first, the longer one reduced to the second
OPACITY = 0.65
COLUMNS = ("image", "truth", "prediction")


def class_colours(classes: int) -> np.ndarray:
    """uint8[C,3]: Pascal VOC's colours, the bits of a class's number spread over the channels; 0 is black."""
    numbers = np.arange(classes)
    colours = np.zeros((classes, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((numbers >> (3 * bit + channel) & 1) << (7 - bit)).astype(np.uint8)
    return colours


def lay_over(image: np.ndarray, mask: np.ndarray, ignore: int, classes: int) -> np.ndarray:
    """uint8[H,W,3]: the colours of mask[H,W] over the grey image uint8[H,W,3], whose own colours would make
    those of the classes look like others; ignored pixels are white."""
    grey = np.asarray(Image.fromarray(image).convert("L"), np.float32)[..., None]
    colours = np.full((max(ignore, classes) + 1, 3), 255, np.uint8)
    colours[:classes] = class_colours(classes)
    mixed = grey + OPACITY * (colours[mask].astype(np.float32) - grey)
    return mixed.round().astype(np.uint8)


def write_mask_pictures(
    path: str | Path,
    triples: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    classes: Sequence[str],
    ignore: int,
) -> None:
    """Writes a PNG with a row for each (image, truth, prediction) and the colours of the classes in them.

    Raises:
        UserError: the file cannot be written.
    """
    rows = []
    for image, truth, prediction in triples:
        sides = [image, *(lay_over(image, mask, ignore, len(classes)) for mask in (truth, prediction))]
        rows.append([_enlarged(side) for side in sides])
    width = max(sum(side.width + GAP for side in row) for row in rows) + GAP
    used = sorted(
        {int(value) for _, *masks in triples for mask in masks for value in np.unique(mask)} - {ignore}
    )
    per_line = max(width // 150, 1)
    height = sum(row[0].height + GAP for row in rows) + GAP + LINE * (2 + (len(used) - 1) // per_line)
    sheet = Image.new("RGB", (width, height), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    left = GAP
    for title, side in zip(COLUMNS, rows[0], strict=True):
        pen.text((left, 2), title, fill="black", font=font)
        left += side.width + GAP
    top = LINE
    for row in rows:
        left = GAP
        for side in row:
            sheet.paste(side, (left, top))
            left += side.width + GAP
        top += row[0].height + GAP
    colours = class_colours(len(classes))
    for place, number in enumerate(used):
        x, y = GAP + 150 * (place % per_line), top + LINE * (place // per_line)
        pen.rectangle((x, y + 2, x + 10, y + 12), fill=tuple(colours[number].tolist()), outline="black")
        pen.text((x + 14, y), classes[number][:22], fill="black", font=font)
    with atomic_write(path) as file:
        sheet.save(file, format="PNG")


def _enlarged(image: np.ndarray) -> Image.Image:
    picture = Image.fromarray(image)
    least, most = SIDES
    scale = min(max(1.0, least / min(picture.size)), most / max(picture.size))
    return picture.resize((round(picture.width * scale), round(picture.height * scale)))
