"""Images of more than eight bits: how many of their bits are used, and a remark where they would be nearly
black.

A file says that its pixels have 16 bits, not how many of them a camera filled. One depth is taken for a whole
set (`data.bit_depth`; `found_depth.py` finds it); one for each image would change the contrast between them.
"""

from __future__ import annotations

import numpy as np

from siamtransfer.data.pixel_form import FULL
from siamtransfer.utils.log import is_first_rank, say

COMMON = (8, 10, 12, 14, FULL)  # bits that cameras and programs have
FEW = 16  # grey levels of 256 that an image should have more of

_remarked: set[str] = set()
"""The remarks that this process has made; forked workers inherit them."""


def to_eight_bits(values: np.ndarray, bit_depth: int) -> np.ndarray:
    """uint8 of integers of `bit_depth` bits: their upper eight bits."""
    shift = bit_depth - 8
    return (values >> shift if shift >= 0 else values << -shift).astype(np.uint8)


def depth_for(high: int) -> int:
    """The bits of the camera or program that values up to `high` come from: the least of COMMON that holds
    them."""
    return next((bits for bits in COMMON if not int(high) >> bits), FULL)


def is_dim(low: int, high: int, bits: int = FULL) -> bool:
    """Whether an image with values from `low` to `high`, read as of so many bits, has few grey levels though
    it is not plain."""
    return high > low and levels_of(low, high, bits) <= FEW


def levels_of(low: int, high: int, bits: int) -> int:
    """The grey levels of 256 that values from `low` to `high` become."""
    down = max(bits - 8, 0)
    return (high >> down) - (low >> down) + 1


def remark_once(kind: str, text: str) -> None:
    """Says `text`, the first time that this process makes a remark of this kind."""
    if kind not in _remarked:
        _remarked.add(kind)
        say(f"remark: {text}")


def remark_on_set(kind: str, text: str) -> None:
    """`remark_once` on a set, which every rank finds alike: the first rank says it."""
    if is_first_rank():
        remark_once(kind, text)
    _remarked.add(kind)


def remark_on_image(low: int, high: int, where: str) -> None:
    """The remark on a single dim image, once in a process."""
    if is_dim(low, high):
        remark_once("depth", f"{where} has 16-bit pixels of {low} to {high}, {_consequence(low, high)}")


def _consequence(low: int, high: int) -> str:
    bits = int(high).bit_length()
    return (
        f"which become {levels_of(low, high, FULL)} of 256 grey levels, nearly one colour: say "
        f"--data.bit-depth {bits} ({levels_of(low, high, bits)} levels, for all images of the set), or "
        "convert the images to 8 bits"
    )
