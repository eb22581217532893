"""Text in pictures: names in a given width, in letters that the font has.

The font is DejaVu Sans, which comes with matplotlib: Latin, Greek, Cyrillic, Armenian, Georgian, Hebrew,
Arabic and more. A letter that it lacks is written as its number in Unicode (`\\u732b`), never as an empty
box that could be any letter.
"""

from __future__ import annotations

import functools
from pathlib import Path

import matplotlib as mpl
from matplotlib.ft2font import FT2Font
from PIL import ImageFont

SIZE = 11  # pixels
LINE = 15  # pixels from a line of text to the next
GAP_MARK = "…"


@functools.cache
def caption_font(size: int = SIZE) -> ImageFont.FreeTypeFont:
    """The font of captions."""
    return ImageFont.truetype(_font_file(), size, layout_engine=ImageFont.Layout.BASIC)


def short_name(where: str) -> str:
    """What stands in a picture for an image that a set describes as `where`: the name of its file without
    folders, or the last part of what the set calls it (`test[17]`)."""
    return where.rpartition("/")[2]


def drawable(text: str) -> str:
    """The text with every character that cannot be drawn as its number: letters that the font lacks, control
    characters, bytes of a name that are not UTF-8."""
    known = _characters()
    return "".join(c if ord(c) in known and c.isprintable() else _escaped(c) for c in text)


def fitted(text: str, width: float, size: int = SIZE) -> str:
    """The text as it is drawn; one that is wider than `width` pixels is shortened in the middle, so that the
    beginning and the ending of a name stay."""
    text = drawable(text)
    length = caption_font(size).getlength
    if length(text) <= width:
        return text
    low, high = 0, len(text)  # characters that are kept: `low` fit, `high` do not
    while high - low > 1:
        kept = (low + high) // 2
        if length(_shortened(text, kept)) <= width:
            low = kept
        else:
            high = kept
    return _shortened(text, low)


def _shortened(text: str, kept: int) -> str:
    end = (kept + 1) // 2
    return text[: kept - end] + GAP_MARK + (text[-end:] if end else "")


def _escaped(character: str) -> str:
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # a byte that is not UTF-8, as os.fsdecode has it
        return f"\\x{number - 0xDC00:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _font_file() -> str:
    return str(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")


@functools.cache
def _characters() -> frozenset[int]:
    """The numbers in Unicode of the characters that the font has."""
    return frozenset(FT2Font(_font_file()).get_charmap())
