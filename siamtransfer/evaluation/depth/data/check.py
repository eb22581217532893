"""All depth maps of a set looked at before something is fitted to them; what a guess without an image would
be.

Legend: N images, C cells a side of the mean map.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from siamtransfer.distributed.runtime import cpu_count
from siamtransfer.evaluation.depth.data.depth_images import DepthImages, read_pair
from siamtransfer.metrics.depth import DepthRange
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say
from siamtransfer.utils.text import first_few

CELLS = 16
"""C: the mean map is coarse, for single pixels would be the means of few numbers."""
FEW = 1e-3
"""A share of pixels beyond the range that is not remarked on."""
_MOST_THREADS = 8
_PROGRESS_SECONDS = 10.0


@dataclass
class DepthReport:
    """What a check has found.

    Attributes:
        sums, counts: float64[C, C]: the sum of the depths that count and their number, by their place in the
            image.
        pixels, missing, beyond: numbers of all pixels, of those without a depth, and of depths that lie
            outside the range.
        remarks: what is no error but should be known, a sentence each.
    """

    sums: np.ndarray = field(default_factory=lambda: np.zeros((CELLS, CELLS)))
    counts: np.ndarray = field(default_factory=lambda: np.zeros((CELLS, CELLS)))
    pixels: int = 0
    missing: int = 0
    beyond: int = 0
    remarks: list[str] = field(default_factory=list)

    def add(self, look: DepthLook) -> None:
        """Adds the look at a map."""
        self.sums += look.sums
        self.counts += look.counts
        self.pixels += look.pixels
        self.missing += look.missing
        self.beyond += look.beyond

    @property
    def mean(self) -> float:
        """The mean depth in metres over all pixels that count."""
        return float(self.sums.sum() / self.counts.sum())

    @property
    def mean_map(self) -> np.ndarray:
        """float64[C, C]: the mean depth at each place; the mean of all where no depth counts."""
        return np.where(self.counts > 0, self.sums / np.maximum(self.counts, 1), self.mean)


class DepthLook(NamedTuple):
    """What is kept of a depth map: the sums and numbers of the depths that count, float64[C, C] and
    int64[C, C], the numbers of all, missing and other pixels outside the range, and the largest depth in
    metres."""

    sums: np.ndarray
    counts: np.ndarray
    pixels: int
    missing: int
    beyond: int
    largest: float


def look_at(images: DepthImages, index: int, depths: DepthRange) -> DepthLook:
    """Reads image `index` and its depth map; raises UserError, see `read_pair`."""
    _, depth = read_pair(images, index)
    valid, known = depths.valid(depth), depth > 0
    rows, columns = ((2 * np.arange(pixels) + 1) * CELLS // (2 * pixels) for pixels in depth.shape)
    cells = (rows[:, None] * CELLS + columns)[valid]
    sums = np.bincount(cells, depth[valid].astype(np.float64), CELLS**2)
    counts = np.bincount(cells, minlength=CELLS**2)
    outside = int((known & ~valid).sum())
    shape = (CELLS, CELLS)
    return DepthLook(
        sums.reshape(shape),
        counts.reshape(shape),
        depth.size,
        int((~known).sum()),
        outside,
        float(depth.max()),
    )


def check_depths(images: DepthImages, depths: DepthRange) -> DepthReport:
    """Looks at every image and its depth map; several threads read them, and the progress is said every ten
    seconds.

    Raises:
        UserError: a file cannot be read, sizes differ, or no depth of the whole set lies in the range;
            names the first file and what helps.
    """
    report, name = DepthReport(), f"{images.name}/{images.split}"
    empty: list[str] = []
    largest, farthest = 0.0, ""
    began = said = time.monotonic()
    with ThreadPoolExecutor(min(_MOST_THREADS, cpu_count())) as pool:
        looks = pool.map(lambda index: look_at(images, index, depths), range(len(images)))
        for index, look in enumerate(looks):
            report.add(look)
            if not look.counts.any():
                empty.append(images.describe_depth(index))
            if look.largest > largest:
                largest, farthest = look.largest, images.describe_depth(index)
            if time.monotonic() - said > _PROGRESS_SECONDS:
                said = time.monotonic()
                left = (said - began) / (index + 1) * (len(images) - index - 1)
                say(f"checked {index + 1:,} of {len(images):,} depth maps of {name}, {left:.0f} s left")
    if not report.counts.any():
        raise UserError(_nothing(report, name, depths, empty[0], largest))
    report.remarks = _remarks(report, images, depths, empty, f"{largest:.4g} m in {farthest}")
    return report


def _remarks(
    report: DepthReport, images: DepthImages, depths: DepthRange, empty: list[str], largest: str
) -> list[str]:
    """Maps without a depth that counts, and depths outside the range."""
    remarks, name = [], f"{images.name}/{images.split}"
    if empty:
        remarks.append(
            f"{len(empty)} of {len(images)} depth maps of {name} have no depth that counts: "
            f"{first_few(empty)}"
        )
    known = report.pixels - report.missing
    if report.beyond > FEW * known:
        remarks.append(
            f"{report.beyond:,} depths of {name} ({100 * report.beyond / known:.1f} %) lie outside "
            f"{depths.low:g} to {depths.high:g} m and count nowhere; the largest is {largest}"
        )
    return remarks


def _nothing(report: DepthReport, name: str, depths: DepthRange, first: str, largest: float) -> str:
    """The sentence about a set without a depth that counts."""
    if report.missing == report.pixels:
        return (
            f"every pixel of all depth maps of {name} is 0, which means missing (the first is {first}); "
            "check them"
        )
    return (
        f"no depth of {name} lies between {depths.low:g} and {depths.high:g} m; the largest is "
        f"{largest:.4g} m: give the value of a metre in the files with --data.depth-scale, or another "
        f"--max-depth"
    )
