"""Names in pictures: shortened in the middle, and in letters that the font has."""

from __future__ import annotations

import os

import pytest
from PIL import Image, ImageDraw

from siamtransfer.utils.captions import caption_font, drawable, fitted


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        ("photo_01.JPG", "photo_01.JPG"),
        ("кот αβγ שלום é.png", "кот αβγ שלום é.png"),
        ("猫.png", "\\u732b.png"),
        ("\U00020000.png", "\\U00020000.png"),
        ("a\nb\t.png", "a\\u000ab\\u0009.png"),
        (os.fsdecode(b"\xff.png"), "\\xff.png"),
        ("", ""),
    ],
)
def test_what_the_font_lacks_is_written_as_a_number(text: str, drawn: str):
    assert drawable(text) == drawn
    ImageDraw.Draw(Image.new("RGB", (200, 20))).text((0, 0), drawable(text), font=caption_font())


@pytest.mark.parametrize("width", [0, 1, 20, 61, 140])
def test_a_long_name_keeps_its_beginning_and_its_ending(width: int):
    name = "IMG_20260101_123456_of_a_long_holiday.jpeg"
    short = fitted(name, width)
    assert short == "…" or caption_font().getlength(short) <= width
    begin, _, end = short.partition("…")
    assert name.startswith(begin) and name.endswith(end)
    assert len(end) - len(begin) in (0, 1)
    more = name[: len(begin) + 1] + "…" + name[len(name) - len(end) - 1 :]
    assert caption_font().getlength(more) > width


def test_a_name_that_fits_stays():
    assert fitted("a.jpg", 100) == "a.jpg"
