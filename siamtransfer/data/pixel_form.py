"""How the pixels of a set's files become uint8[H,W,C]: stated once for a whole set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from siamtransfer.utils.errors import UserError

FULL = 16
"""Bits of integers with more than eight, where nothing else is said."""

Colour = tuple[int, int, int]
"""Red, green and blue from 0 to 255."""

Orientation = Literal["shown", "stored"]
"""Whether pixels are turned as the EXIF orientation says, as viewers show them, or stay as stored."""

BACKGROUNDS: dict[str, Colour] = {"white": (255, 255, 255), "black": (0, 0, 0)}
DROP = "drop"
"""The background that is none: alpha is left out, and the colours below transparent pixels appear."""

Axes = Literal["hwc", "chw"]
"""The order of the axes of an array: height, width, channels, or channels first."""

VIEW_OPTIONS = ("orientation", "background")
"""How a picture that is no plain rectangle of colours is seen."""

DEPTH_OPTIONS = ("bit_depth", "value_range")
"""The options that a set of files of one's own finds for itself where they are not stated."""

FILE_OPTIONS = (*VIEW_OPTIONS, "max_pixels")
"""The options that every set of files takes."""

OPTIONS = ("channels", *DEPTH_OPTIONS, "axes", *FILE_OPTIONS)
"""The options of a set of files of one's own that make its PixelForm."""


@dataclass(frozen=True)
class PixelForm:
    """The form that every image of a set has.

    Attributes:
        channels: C. With 3, images are RGB, and others are converted as decode.py says; with any other
            number nothing is converted, and every file has exactly so many.
        bit_depth: bits of integers with more than eight; None is 16, with a remark where few are used.
        value_range: the values that become 0 and 255, of floating-point numbers and, without a bit depth, of
            integers with more than eight bits; None: floating-point numbers are refused.
        axes: of arrays and of TIFF files that do not name their axes; None: the one order in which one
            axis has C entries.
        orientation: see Orientation.
        background: the colour under transparent pixels of images of three channels; None: see DROP.
        found: bit depth and range were found in a part of the files, so an image beyond them ends the
            reading with a sentence instead of being clipped or taken for a damaged one.
        max_pixels: the most pixels that an image may have; None: those that Pillow allows.
    """

    channels: int = 3
    bit_depth: int | None = None
    value_range: tuple[float, float] | None = None
    axes: Axes | None = None
    orientation: Orientation = "stored"
    background: Colour | None = None
    found: bool = False
    max_pixels: int | None = None

    @property
    def text(self) -> str:
        """What the fingerprint of a set covers of it: lines, and nothing for RGB images of 16 bits.

        Orientation and background are left out: they say how the same images are looked at. A run's
        configuration and a record have them, and the key of a cache covers them (`view_text`).
        """
        parts = [
            f"\n{self.bit_depth} bits" if self.bit_depth not in (None, FULL) else "",
            f"\n{self.channels} channels" if self.channels != 3 else "",
            f"\nvalues {self.value_range[0]!r} to {self.value_range[1]!r}" if self.value_range else "",
            f"\naxes {self.axes}" if self.axes else "",
        ]
        return "".join(parts)

    @property
    def view_text(self) -> str:
        """What the key of a cache covers beyond the fingerprint; nothing for the published reading."""
        return "".join(
            f"\n{key} {getattr(self, key)}" for key in VIEW_OPTIONS if getattr(self, key) != getattr(RGB, key)
        )

    @property
    def background_name(self) -> str:
        """The background as the option says it."""
        if self.background is None:
            return DROP
        names = {colour: name for name, colour in BACKGROUNDS.items()}
        return names.get(self.background) or ",".join(map(str, self.background))

    def as_dict(self) -> dict[str, Any]:
        """What a record says of it: whatever differs from the published reading of photographs."""
        values: dict[str, Any] = {
            "channels": self.channels,
            "bit_depth": self.bit_depth,
            "axes": self.axes,
            "orientation": self.orientation,
            "max_pixels": self.max_pixels,
        }
        shown = {key: value for key, value in values.items() if value != getattr(RGB, key)}
        if self.channels == 3 and self.background is not None:
            shown["background"] = self.background_name
        return shown | ({"value_range": list(self.value_range)} if self.value_range else {})

    def as_options(self) -> dict[str, Any]:
        """The values of DEPTH_OPTIONS and VIEW_OPTIONS that make this form."""
        return {
            "bit_depth": self.bit_depth,
            "value_range": list(self.value_range) if self.value_range else None,
            "orientation": self.orientation,
            "background": self.background_name if self.channels == 3 else None,
        }


RGB = PixelForm()
"""The published reading of photographs: what torchvision's ImageFolder shows. Pixels lie as they are stored,
and alpha is left out."""

SHOWN = PixelForm(orientation="shown", background=BACKGROUNDS["white"])
"""The form of images of one's own: as viewers show them, transparency on white."""


BEFORE: dict[str, Any] = {"orientation": "stored", "background": DROP, "bit_depth": FULL}
"""The reading of runs that were made before orientation and background were options."""


def recorded_form(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """The OPTIONS that a run recorded with its images, without those that say nothing; of an older run, which
    has no orientation, with the reading of that time."""
    stated = {key: recorded[key] for key in OPTIONS if recorded.get(key) is not None}
    if is_older(recorded):
        scaled = stated.keys() & {"bit_depth", "value_range"}
        stated |= {key: value for key, value in BEFORE.items() if key != "bit_depth" or not scaled}
        if stated.get("channels", 3) != 3:
            del stated["background"]
    return stated


def is_older(recorded: Mapping[str, Any]) -> bool:
    """Whether a run was made before orientation and background were options."""
    return "orientation" not in recorded


def pixel_form(
    channels: int | None = None,
    bit_depth: int | None = None,
    value_range: Sequence[float] | None = None,
    axes: str | None = None,
    orientation: str | None = None,
    background: str | None = None,
    max_pixels: int | None = None,
    *,
    usual: PixelForm = SHOWN,
) -> PixelForm:
    """The form that the options of a set state; None leaves the usual. `usual` is that of the set: SHOWN for
    images of one's own, RGB for published sets.

    Raises:
        UserError: a value is out of its range, or two do not go together.
    """
    if channels is not None and channels < 1:
        raise UserError(f"data.channels is {channels}; an image has one channel or more")
    if bit_depth is not None and not 1 <= bit_depth <= FULL:
        raise UserError(f"data.bit_depth is {bit_depth}, but must be from 1 to {FULL}, or null for {FULL}")
    if axes is not None and axes not in get_args(Axes):
        raise UserError(f"data.axes is {axes!r}, but must be {' or '.join(get_args(Axes))}")
    if orientation is not None and orientation not in get_args(Orientation):
        raise UserError(
            f"data.orientation is {orientation!r}, but must be {' or '.join(get_args(Orientation))}"
        )
    if max_pixels is not None and max_pixels < 1:
        raise UserError(f"data.max_pixels is {max_pixels}; an image has one pixel or more")
    if background is not None and channels not in (None, 3):
        raise UserError(
            f"data.background is for images of three channels; of {channels} every one is taken as it is "
            "stored, alpha too: leave data.background out"
        )
    return PixelForm(
        channels or 3,
        bit_depth,
        None if value_range is None else _range(value_range),
        axes,  # type: ignore[arg-type]
        orientation or usual.orientation,  # type: ignore[arg-type]
        usual.background if background is None else _background(background),
        max_pixels=max_pixels,
    )


def _background(text: str) -> Colour | None:
    """The colour that the option names, or None for DROP."""
    if text == DROP:
        return None
    if text in BACKGROUNDS:
        return BACKGROUNDS[text]
    parts = [part.strip() for part in text.split(",")]
    if len(parts) == 3 and all(part.isascii() and part.isdigit() and int(part) <= 255 for part in parts):
        red, green, blue = map(int, parts)
        return red, green, blue
    raise UserError(
        f"data.background is {text!r}, but must be white, black, three numbers from 0 to 255 such as "
        f"255,240,200, or {DROP}"
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    numbers = tuple(float(value) for value in values)
    if len(numbers) != 2 or not -3e38 < numbers[0] < numbers[1] < 3e38:  # also NaN
        raise UserError(
            f"data.value_range is {list(values)}, but must be two rising numbers: the values that become "
            "black and white"
        )
    return numbers[0], numbers[1]
