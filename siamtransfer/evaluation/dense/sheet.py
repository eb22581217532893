"""Contact sheets: pictures in rows with captions, and the scale of their colours.

Legend: H and W pixels; a picture is uint8[H,W,3].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from siamtransfer.records.sample_values import SampleValues
from siamtransfer.utils.captions import caption_font, drawable, fitted
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import atomic_write
from siamtransfer.utils.log import say

CELL, GAP, LINE = 144, 6, 16  # pixels: the longer side of a picture, between pictures, of a line of text
BAR = (160, 10)  # pixels of the colour scale
GREEN, BLACK, WHITE = (60, 170, 90), (0, 0, 0), (255, 255, 255)
MAP = "viridis"
DIMMED = 0.25  # brightness of an image outside a mask


Colour = tuple[int, int, int]


class Cell(NamedTuple):
    """A picture with its caption, shortened in the middle to its width, and a second line, the `note`.

    A `marked` cell has a green frame and a green caption; `frame` is the colour of any other frame.
    """

    picture: np.ndarray
    caption: str = ""
    marked: bool = False
    note: str = ""
    frame: Colour | None = None


class Scale(NamedTuple):
    """The values at the ends of the colours, and what they measure."""

    low: float
    high: float
    what: str


@dataclass(frozen=True)
class Sheet:
    """A contact sheet.

    Attributes:
        lines: text above the pictures.
        rows: the cells, from the top and from the left.
        scale: of the colours of all maps in it; None where colours have no number.
    """

    lines: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    scale: Scale | None = None

    def write(self, path: Path) -> None:
        """Writes the sheet as a PNG.

        Raises:
            UserError: the file cannot be written.
        """
        with atomic_write(path) as file:
            Image.fromarray(self.draw()).save(file, format="PNG", optimize=True)

    def draw(self) -> np.ndarray:
        """The sheet as a picture."""
        font = caption_font()
        rows = [[cell._replace(picture=_fit(cell.picture)) for cell in row] for row in self.rows]
        heights = [max(len(cell.picture) for cell in row) + _head_of(row) + GAP for row in rows]
        columns = max(len(row) for row in rows)
        widths = [
            max((row[c].picture.shape[1] for row in rows if c < len(row)), default=CELL) + GAP
            for c in range(columns)
        ]
        widths = [max(width, CELL // 2) for width in widths]
        head = LINE * (len(self.lines) + (self.scale is not None)) + GAP
        text_width = max((font.getlength(drawable(line)) for line in self.lines), default=0)
        width = max(sum(widths) + GAP, int(text_width) + 2 * GAP, BAR[0] + 330 if self.scale else 0)
        sheet = Image.new("RGB", (width, head + sum(heights) + GAP), WHITE)
        draw = ImageDraw.Draw(sheet)
        for number, line in enumerate(self.lines):
            draw.text((GAP, GAP // 2 + number * LINE), drawable(line), BLACK, font)
        if self.scale is not None:
            _draw_scale(sheet, draw, self.scale, GAP // 2 + len(self.lines) * LINE)
        top = head
        for row, height in zip(rows, heights, strict=True):
            left = GAP
            for cell, space in zip(row, widths, strict=False):
                _draw_cell(sheet, draw, cell, (left, top), (space, _head_of(row)))
                left += space
            top += height
        return np.asarray(sheet)


class Findings(NamedTuple):
    """What one kind of picture contributes.

    Attributes:
        metrics: numbers by name.
        protocol: how they were measured.
        sheets: by file name.
        provenance: what else is worth a record.
        values: of every image, for comparisons.
    """

    metrics: dict[str, float]
    protocol: dict[str, object]
    sheets: dict[str, Sheet]
    provenance: dict[str, object]
    values: SampleValues | None = None


def write_sheets(sheets: Mapping[str, Sheet], folder: Path) -> None:
    """Writes every sheet into a folder, which is made.

    Raises:
        UserError: the folder or a file cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be made: {error.strerror}; name another") from error
    for name, sheet in sheets.items():
        sheet.write(folder / name)
        say(f"wrote {folder / name}: {len(sheet.rows)} images")


def _head_of(row: Sequence[Cell]) -> int:
    """Pixels of the text above the pictures of a row."""
    return LINE * (2 if any(cell.note for cell in row) else 1)


def _draw_cell(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, cell: Cell, corner: tuple[int, int], space: tuple[int, int]
) -> None:
    """Draws a cell with its text at `corner`; `space` is its width and the height of its text."""
    (left, top), (width, head) = corner, space
    colour = GREEN if cell.marked else cell.frame
    for number, text in enumerate((cell.caption, cell.note)):
        draw.text(
            (left, top + number * LINE),
            fitted(text, width - 2),
            GREEN if cell.marked else BLACK,
            caption_font(),
        )
    picture, top = cell.picture, top + head
    sheet.paste(Image.fromarray(picture), (left, top))
    if colour is not None:
        right, bottom = left + picture.shape[1], top + picture.shape[0]
        draw.rectangle((left - 2, top - 2, right + 1, bottom + 1), outline=colour, width=2)


def _draw_scale(sheet: Image.Image, draw: ImageDraw.ImageDraw, scale: Scale, top: int) -> None:
    font = caption_font()
    ramp = np.repeat(np.linspace(0, 1, BAR[0])[None], BAR[1], axis=0)
    low = f"{scale.low:.3g}"
    draw.text((GAP, top), low, BLACK, font)
    left = GAP + int(font.getlength(low)) + GAP
    sheet.paste(Image.fromarray(coloured(ramp, 0, 1)), (left, top + 3))
    draw.text((left + BAR[0] + GAP, top), f"{scale.high:.3g}  {scale.what}", BLACK, font)


def in_colours(image: np.ndarray) -> np.ndarray:
    """uint8[H,W,3] of an image uint8[H,W,C]: its first three channels, or its first one in grey."""
    return image[..., :3] if image.shape[2] >= 3 else np.repeat(image[..., :1], 3, axis=2)


def coloured(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """The colours uint8[H,W,3] of values[H,W]; `low` and `high` are the ends of the scale."""
    from matplotlib import colormaps

    share = (values - low) / max(high - low, np.finfo(np.float64).tiny)
    colours: np.ndarray = colormaps[MAP](np.clip(share, 0, 1), bytes=True)
    return np.ascontiguousarray(colours[..., :3])


def outside_dimmed(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image uint8[H,W,3], darkened outside mask bool[H,W]."""
    dark = (image * DIMMED).astype(np.uint8)
    return np.where(mask[..., None], image, dark)


def with_cross(image: np.ndarray, x: int, y: int) -> np.ndarray:
    """A copy of the image with a red cross at the pixel (x, y)."""
    marked = Image.fromarray(image)
    draw = ImageDraw.Draw(marked)
    arm = max(2, max(image.shape[:2]) // 20)
    width = max(1, arm // 4)
    draw.line((x - arm, y, x + arm, y), fill=(255, 0, 0), width=width)
    draw.line((x, y - arm, x, y + arm), fill=(255, 0, 0), width=width)
    return np.asarray(marked)


def _fit(picture: np.ndarray) -> np.ndarray:
    """The picture with its longer side at CELL pixels; small ones are enlarged without interpolation."""
    height, width = picture.shape[:2]
    scale = CELL / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX
    return np.asarray(Image.fromarray(picture).resize(size, how))
