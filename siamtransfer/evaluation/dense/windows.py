"""Sliding windows: an image in parts that overlap, each of them an input of the network.

Legend: h and w pixels of the network's input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from siamtransfer.utils.errors import UserError


class Place(NamedTuple):
    """Where a view lies in an input: rows from `top` to before `bottom` of `height`, columns from `left` to
    before `right` of `width`."""

    top: int
    bottom: int
    left: int
    right: int
    height: int
    width: int

    @classmethod
    def whole(cls, height: int, width: int) -> Place:
        """The whole input."""
        return cls(0, height, 0, width, height, width)


class View(NamedTuple):
    """What a network makes of a part of an image: a map float32[D, h, w], and the place of the part."""

    features: Tensor
    place: Place


@dataclass(frozen=True)
class Windows:
    """Squares of `side` pixels, `stride` pixels apart.

    An image that is shorter than the window in a direction has one window there, which is smaller. The last
    window ends at the image's end, so it overlaps more. These are the windows of mmsegmentation's slide mode.
    """

    side: int
    stride: int

    def places(self, height: int, width: int) -> list[Place]:
        """The windows of an input of h x w pixels, row by row."""
        return [
            Place(top, bottom, left, right, height, width)
            for top, bottom in self._spans(height)
            for left, right in self._spans(width)
        ]

    def _spans(self, length: int) -> list[tuple[int, int]]:
        count = -(-max(length - self.side, 0) // self.stride) + 1
        ends = [min(number * self.stride + self.side, length) for number in range(count)]
        return [(max(end - self.side, 0), end) for end in ends]


def choose_windows(
    window: int | None, stride: int | None, multiple: int, only: tuple[int, int] | None, name: str
) -> Windows | None:
    """The windows that --window and --stride ask for, their side rounded to a multiple of a patch; None where
    the image is seen whole. Without --stride it is two thirds of the side.

    Args:
        multiple: the side of a patch of the network `name`.
        only: height and width of the only images that it takes; None where it takes any.

    Raises:
        UserError: windows leave gaps, or the network takes images of another size only.
    """
    if window is None:
        return None
    side = max(1, round(window / multiple)) * multiple
    if only is not None and (side, side) != only:
        raise UserError(f"{name} takes images of {only[0]} x {only[1]} pixels only: give --window {only[0]}")
    chosen = max(1, round(side * 2 / 3)) if stride is None else stride
    if chosen > side:
        raise UserError(
            f"--stride {chosen} leaves gaps between windows of {side} pixels: give at most {side}"
        )
    return Windows(side, chosen)
