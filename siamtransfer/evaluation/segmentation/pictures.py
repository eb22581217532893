"""Images, truths and predictions side by side, in the colours of their classes, with a legend.

Legend: H and W pixels, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from siamtransfer.evaluation.dense.sheet import BLACK, GAP, LINE, WHITE, Cell, Sheet, in_colours
from siamtransfer.evaluation.segmentation.scoring import Scored
from siamtransfer.segmentation.data.masked_images import MaskedImages
from siamtransfer.utils.captions import caption_font, drawable, short_name
from siamtransfer.utils.files import atomic_write
from siamtransfer.utils.log import say

IGNORED = (224, 224, 224)
SWATCH = 12  # pixels
_BITS = 8


def class_colours(classes: int) -> np.ndarray:
    """uint8[C, 3]: black for class 0, then the colour map of Pascal VOC, which reads the bits of a class into
    red, green and blue, the lowest bits into the highest ones of the colour."""
    numbers = np.arange(classes)
    colours = np.zeros((classes, 3), np.uint8)
    for place in range(_BITS):
        for channel in range(3):
            bit = numbers >> (3 * place + channel) & 1
            colours[:, channel] |= (bit << (_BITS - 1 - place)).astype(np.uint8)
    return colours


def paint(labels: np.ndarray, colours: np.ndarray, ignore: int | None = None) -> np.ndarray:
    """uint8[H, W, 3] of class numbers[H, W]; pixels of the value `ignore` are light grey."""
    picture: np.ndarray = colours[np.minimum(labels, len(colours) - 1)]
    if ignore is not None:
        picture[labels == ignore] = IGNORED
    return picture


def write_pictures(
    path: str, images: MaskedImages, shown: Sequence[int], scored: Sequence[Scored], source: str
) -> None:
    """Writes a PNG: a row for each shown image, a column for its truth and for each probe.

    Raises:
        UserError: the file cannot be written.
    """
    colours = class_colours(len(images.classes))
    rows, present = [], set()
    for index in shown:
        mask = images.mask(index)
        cells = [Cell(in_colours(images.image(index)), short_name(images.describe(index)))]
        cells.append(Cell(paint(mask, colours, images.ignore), "truth"))
        cells += [Cell(paint(each.shown[index], colours), each.name) for each in scored if each.shown]
        rows.append(cells)
        present |= set(np.unique(mask).tolist()) - {images.ignore}
        present |= {int(label) for each in scored if each.shown for label in np.unique(each.shown[index])}
    sheet = Sheet([source, f"{images.name}/{images.split}, at the size of the masks"], rows).draw()
    legend = _legend(sheet.shape[1], images.classes, sorted(present), colours)
    with atomic_write(Path(path)) as file:
        Image.fromarray(np.concatenate([sheet, legend])).save(file, format="PNG", optimize=True)
    say(f"wrote {path}")


def _legend(width: int, classes: Sequence[str], present: Sequence[int], colours: np.ndarray) -> np.ndarray:
    """uint8[h, width, 3]: a swatch and a name for each class that is in a picture, and for ignored pixels."""
    font = caption_font()
    entries = [(drawable(classes[label]), tuple(int(c) for c in colours[label])) for label in present]
    entries.append(("ignored", IGNORED))
    places, left, top = [], GAP, GAP
    for name, _ in entries:
        space = SWATCH + GAP + int(font.getlength(name)) + 2 * GAP
        if left > GAP and left + space > width:
            left, top = GAP, top + LINE
        places.append((left, top))
        left += space
    picture = Image.new("RGB", (width, top + LINE + GAP), WHITE)
    draw = ImageDraw.Draw(picture)
    for (name, colour), (x, y) in zip(entries, places, strict=True):
        draw.rectangle((x, y, x + SWATCH, y + SWATCH), fill=colour, outline=BLACK)
        draw.text((x + SWATCH + GAP, y), name, BLACK, font)
    return np.asarray(picture)
