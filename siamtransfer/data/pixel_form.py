"""How the pixels of a set's files become uint8[H,W,C]: stated once for a whole set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from siamtransfer.data.depth import FULL
from siamtransfer.utils.errors import UserError

Axes = Literal["hwc", "chw"]
"""The order of the axes of an array: height, width, channels, or channels first."""

OPTIONS = ("channels", "bit_depth", "value_range", "axes")
"""The options of a set of files of one's own that make its PixelForm."""


@dataclass(frozen=True)
class PixelForm:
    """The form that every image of a set has.

    Attributes:
        channels: C. With 3, images are RGB, and others are converted as decode.py says; with any other
            number nothing is converted, and every file has exactly so many.
        bit_depth: bits of integers with more than eight; None is 16, with a remark where few are used.
        value_range: the values that become 0 and 255, of files with more than eight bits or floating-point
            numbers; None: the integers of `bit_depth` bits.
        axes: of arrays and of TIFF files that do not name their axes; None: the one order in which one
            axis has C entries.
    """

    channels: int = 3
    bit_depth: int | None = None
    value_range: tuple[float, float] | None = None
    axes: Axes | None = None

    @property
    def text(self) -> str:
        """What a fingerprint covers of it: lines, and nothing for RGB images of 16 bits."""
        parts = [
            f"\n{self.bit_depth} bits" if self.bit_depth else "",
            f"\n{self.channels} channels" if self.channels != 3 else "",
            f"\nvalues {self.value_range[0]!r} to {self.value_range[1]!r}" if self.value_range else "",
            f"\naxes {self.axes}" if self.axes else "",
        ]
        return "".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """What a record says of it: whatever differs from the usual."""
        values = {"channels": self.channels, "bit_depth": self.bit_depth, "axes": self.axes}
        shown = {key: value for key, value in values.items() if value != getattr(RGB, key)}
        return shown | ({"value_range": list(self.value_range)} if self.value_range else {})


RGB = PixelForm()
"""The form of photographs."""


def pixel_form(
    channels: int | None = None,
    bit_depth: int | None = None,
    value_range: Sequence[float] | None = None,
    axes: str | None = None,
) -> PixelForm:
    """The form that the options of a set state; None leaves the usual.

    Raises:
        UserError: a value is out of its range, or two contradict each other.
    """
    if channels is not None and channels < 1:
        raise UserError(f"data.channels is {channels}; an image has one channel or more")
    if bit_depth is not None and not 1 <= bit_depth <= FULL:
        raise UserError(f"data.bit_depth is {bit_depth}, but must be from 1 to {FULL}, or null for {FULL}")
    if axes is not None and axes not in get_args(Axes):
        raise UserError(f"data.axes is {axes!r}, but must be {' or '.join(get_args(Axes))}")
    if value_range is None:
        return PixelForm(channels or 3, bit_depth, None, axes)  # type: ignore[arg-type]
    if bit_depth is not None:
        raise UserError(
            "data.bit_depth and data.value_range both say which value becomes white: leave one of them out"
        )
    low, high = _range(value_range)
    return PixelForm(channels or 3, None, (low, high), axes)  # type: ignore[arg-type]


def _range(values: Sequence[float]) -> tuple[float, float]:
    numbers = tuple(float(value) for value in values)
    if len(numbers) != 2 or not -3e38 < numbers[0] < numbers[1] < 3e38:  # also NaN
        raise UserError(
            f"data.value_range is {list(values)}, but must be two rising numbers: the values that become "
            "black and white"
        )
    return numbers[0], numbers[1]
