"""All depth maps of a set looked at before something is fitted to them; what a guess without an image would
be.

Legend: N images, C cells a side of the mean map.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

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
        outside
            the range.
        remarks: what is no error but should be known, a sentence each.
    """

    sums: np.ndarray = field(default_factory=lambda: np.zeros((CELLS, CELLS)))
    counts: np.ndarray = field(default_factory=lambda: np.zeros((CELLS, CELLS)))
    pixels: int = 0
    missing: int = 0
    beyond: int = 0
    remarks: list[str] = field(default_factory=list)

    @property
    def mean(self) -> float:
        """The mean depth in metres over all pixels that count."""
        return float(self.sums.sum() / self.counts.sum())

    @property
    def mean_map(self) -> np.ndarray:
        """float64[C, C]: the mean depth at each place; the mean of all where no depth counts."""
        return np.where(self.counts > 0, self.sums / np.maximum(self.counts, 1), self.mean)


def check_depths(images: DepthImages, depths: DepthRange) -> DepthReport:
    """Looks at every image and its depth map; several threads read them, and the progress is said every ten
    seconds.

    Raises:
        UserError: a file cannot be read, sizes differ, or no depth of the whole set lies in the range;
        names the
            first file and what helps.
    """
    report, name = DepthReport(), f"{images.name}/{images.split}"
    empty: list[str] = []
    largest, farthest = 0.0, ""
    began = said = time.monotonic()
    with ThreadPoolExecutor(min(_MOST_THREADS, cpu_count())) as pool:
        for index, depth in enumerate(
            pool.map(lambda index: read_pair(images, index)[1], range(len(images)))
        ):
            valid, known = depths.valid(depth), depth > 0
            _add(report, depth, valid, known)
            if not valid.any():
                empty.append(images.describe_depth(index))
            if known.any() and float(depth.max()) > largest:
                largest, farthest = float(depth.max()), images.describe_depth(index)
            if time.monotonic() - said > _PROGRESS_SECONDS:
                said = time.monotonic()
                left = (said - began) / (index + 1) * (len(images) - index - 1)
                say(f"checked {index + 1:,} of {len(images):,} depth maps of {name}, {left:.0f} s left")
    if not report.counts.any():
        raise UserError(_nothing(report, name, depths, empty[0], largest))
    if empty:
        report.remarks.append(
            f"{len(empty)} of {len(images)} depth maps of {name} have no depth that counts: "
            f"{first_few(empty)}"
        )
    if report.beyond > FEW * (report.pixels - report.missing):
        share = 100 * report.beyond / (report.pixels - report.missing)
        report.remarks.append(
            f"{report.beyond:,} depths of {name} ({share:.1f} %) lie outside {depths.low:g} to "
            f"{depths.high:g} m and count nowhere; the largest is {largest:.4g} m in {farthest}"
        )
    return report


def _add(report: DepthReport, depth: np.ndarray, valid: np.ndarray, known: np.ndarray) -> None:
    (rows, columns) = ((2 * np.arange(pixels) + 1) * CELLS // (2 * pixels) for pixels in depth.shape)
    cells = (rows[:, None] * CELLS + columns)[valid]
    report.sums += np.bincount(cells, depth[valid].astype(np.float64), CELLS**2).reshape(CELLS, CELLS)
    report.counts += np.bincount(cells, minlength=CELLS**2).reshape(CELLS, CELLS)
    report.pixels += depth.size
    report.missing += int((~known).sum())
    report.beyond += int((known & ~valid).sum())


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
