"""The transformations by name, what their strengths count, and which are measured. This module imports
neither torch nor NumPy."""

from __future__ import annotations

from typing import NamedTuple


class Scale(NamedTuple):
    """The strengths of a transformation; 0 changes nothing.

    Attributes:
        unit: what a strength counts.
        strengths: those that are measured where none are named, rising.
        most: the largest one that has a meaning.
        colours: whether it needs images with red, green and blue.
        switch: whether it has no strength but 1.
    """

    unit: str
    strengths: tuple[float, ...]
    most: float
    colours: bool = False
    switch: bool = False


SCALES: dict[str, Scale] = {
    "rotation": Scale("degrees, either way", (15, 45, 90, 180), 360),
    "horizontal_mirror": Scale("1: left and right change places", (1,), 1, switch=True),
    "vertical_mirror": Scale("1: top and bottom change places", (1,), 1, switch=True),
    "crop": Scale("share of the area that is cut away", (0.2, 0.4, 0.6, 0.8), 0.99),
    "zoom_in": Scale("how much larger: 1 is twice as large", (0.25, 0.5, 1, 2), 9),
    "zoom_out": Scale("how much smaller: 1 is half as large", (0.25, 0.5, 1, 2), 9),
    "hue": Scale("share of the colour circle, either way", (0.05, 0.1, 0.25, 0.5), 0.5, colours=True),
    "saturation": Scale("how much stronger the colours: 1 is twice", (0.5, 1, 2), 20, colours=True),
    "grey": Scale("share of the colour that is lost", (0.25, 0.5, 1), 1, colours=True),
    "brightness": Scale("share by which values rise or fall", (0.1, 0.2, 0.4, 0.8), 1),
    "contrast": Scale("share by which contrast rises or falls", (0.2, 0.4, 0.6, 0.8), 1),
    "blur": Scale("deviation of the Gaussian in % of the side", (1, 2, 4, 8), 25),
    "noise": Scale("deviation of the noise, the range of values being 1", (0.02, 0.05, 0.1, 0.2), 10),
    "occlusion": Scale("share of the area that a square hides", (0.05, 0.1, 0.25, 0.5), 1),
}
"""By name, in the order of tables and pictures."""
