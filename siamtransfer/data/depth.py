"""Grey images of more than eight bits: how many of their bits are used, and a remark where they would be
nearly black.

A file says that its pixels have 16 bits, not how many of them a camera filled. One depth is chosen for a
whole set (`data.bit_depth`); to choose one for each image would change the contrast between images.
"""

from __future__ import annotations

import io
from typing import Protocol

import numpy as np
from PIL import Image

from siamtransfer.utils.log import say

FULL = 16  # bits, where nothing else is said
COMMON = (8, 10, 12, 14, FULL)  # bits that cameras and programs have
FEW = 16  # grey levels of 256 that an image should have more of
PROBED = 32  # files of a set that are looked at when it is opened
ENDINGS = (".png", ".tif", ".tiff", ".pgm", ".pnm")  # of formats that have 16 bits
STARTS = (b"\x89PNG", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"P2", b"P5")  # of files in them

_remarked: set[str] = set()
"""The remarks that this process has made; forked workers inherit them."""


class Files(Protocol):
    """The part of a set of image files that the probe uses."""

    name: str
    split: str

    def __len__(self) -> int: ...

    def deep_source(self, index: int) -> str | io.BytesIO | None:
        """What Pillow opens; None where the format has no more than eight bits."""

    def describe(self, index: int) -> str: ...


def to_eight_bits(values: np.ndarray, bit_depth: int) -> np.ndarray:
    """uint8 of integers of `bit_depth` bits: their upper eight bits."""
    shift = bit_depth - 8
    return (values >> shift if shift >= 0 else values << -shift).astype(np.uint8)


def depth_for(high: int) -> int:
    """The bits of the camera or program that values up to `high` come from: the least of COMMON that holds
    them."""
    return next((bits for bits in COMMON if not int(high) >> bits), FULL)


def is_dim(low: int, high: int) -> bool:
    """Whether an image with values from `low` to `high`, read as 16 bits, has few grey levels though it is
    not plain."""
    return high > low and (high >> 8) - (low >> 8) < FEW


def remark_once(kind: str, text: str) -> None:
    """Says `text`, the first time that this process makes a remark of this kind."""
    if kind not in _remarked:
        _remarked.add(kind)
        say(f"remark: {text}")


def remark_on_image(low: int, high: int, where: str) -> None:
    """The remark on a single dim image, once in a process."""
    if is_dim(low, high):
        remark_once("depth", f"{where} has 16-bit pixels of {low} to {high}, {_consequence(low, high)}")


def evenly(length: int, count: int) -> list[int]:
    """Up to `count` indices of a set of that length, evenly taken."""
    return np.unique(np.linspace(0, length - 1, min(count, length)).round().astype(int)).tolist()


def remark_on_files(files: Files) -> str | None:
    """Looks at up to PROBED files of a set, evenly taken. Says and returns a remark where any is dim."""
    dim: list[tuple[int, int, str]] = []
    deep = 0
    indices = evenly(len(files), PROBED)
    for index in indices:
        source = files.deep_source(index)
        extremes = None if source is None else _extremes(source)
        if extremes is not None:
            deep += 1
            if is_dim(*extremes):
                dim.append((*extremes, files.describe(index)))
    if not dim:
        return None
    low, high = min(low for low, _, _ in dim), max(high for _, high, _ in dim)
    remark = (
        f"{files.name}/{files.split}: {deep} of {len(indices)} files that were looked at have 16-bit pixels, "
        f"and {len(dim)} of these (such as {dim[0][2]}) use only {low} to {high}, {_consequence(low, high)}"
    )
    _remarked.add("depth")  # the remark on the set says more than one on an image
    remark_once(remark, remark)
    return remark


def _consequence(low: int, high: int) -> str:
    bits = int(high).bit_length()
    levels = (high >> 8) - (low >> 8) + 1
    better = (high >> max(bits - 8, 0)) - (low >> max(bits - 8, 0)) + 1
    return (
        f"which become {levels} of 256 grey levels, nearly one colour: say --data.bit-depth {bits} "
        f"({better} levels, for all images of the set), or convert the images to 8 bits"
    )


def _extremes(source: str | io.BytesIO) -> tuple[int, int] | None:
    """The least and the largest value of a grey image of more than eight bits; None for any other file."""
    try:
        with Image.open(source) as image:
            if image.mode != "I" and not image.mode.startswith("I;16"):
                return None
            values = np.asarray(image)
    except Exception:  # Pillow's readers raise errors of many types; reading the image will name the file
        return None
    low, high = int(values.min()), int(values.max())
    return (low, high) if 0 <= low <= high <= 0xFFFF else None
