"""COCO's compressed run lengths, decoded and checked before pycocotools sees them: its C code trusts them.

A mask is a row of counts, of pixels outside and inside in turn, down the columns of its image. From the
fourth on, a count is written as its difference to the one two places before. A number is written in groups of
five bits, the lowest first, as characters from "0" on; the sixth bit says that a further group follows, and
the fifth bit of the last group is the sign (github.com/cocodataset/cocoapi, common/maskApi.c).

Legend: n masks with m characters and r runs in all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_FIRST, _BITS = 48, 5
_LAST = _FIRST + 63
_MORE, _SIGN = 0x20, 0x10
_MOST_GROUPS = 8  # of a number; 40 bits hold any count and any difference of two
_MOST_COUNT = 2**32


def inside_pixels(codes: Sequence[str], pixels: np.ndarray) -> tuple[np.ndarray, str | None]:
    """The pixels inside each of n masks, int64[n], and why the first wrong one is wrong, or None.

    pixels: int64[n], the pixels of the image of each, to which its counts have to add up. Of a wrong mask the
    first result is -1.
    """
    text = "".join(codes)
    lengths = np.fromiter(map(len, codes), np.int64, len(codes))
    wrong = lengths == 0
    if not text.isascii():
        wrong |= np.fromiter((not code.isascii() for code in codes), bool, len(codes))
    characters = np.frombuffer(text.encode("ascii", "replace"), np.uint8).astype(np.int64)
    ends = np.cumsum(lengths)
    _mark(wrong, ends, np.flatnonzero((characters < _FIRST) | (characters > _LAST)))
    groups = (characters - _FIRST) & 63
    follows = (groups & _MORE) != 0
    last = ends[lengths > 0] - 1
    _mark(wrong, ends, last[follows[last]])
    follows[last] = False  # so that a number that is cut off does not reach into the next mask
    stops = np.flatnonzero(~follows)
    sizes = np.diff(stops, prepend=-1)
    _mark(wrong, ends, stops[sizes > _MOST_GROUPS])
    runs = np.diff(np.searchsorted(stops, ends, side="left"), prepend=0)
    return _sums(_numbers(groups, stops, sizes), runs, pixels, wrong)


def _mark(wrong: np.ndarray, ends: np.ndarray, places: np.ndarray) -> None:
    """Marks the masks to which the characters at `places` belong."""
    wrong[np.searchsorted(ends, places, side="right")] = True


def _numbers(groups: np.ndarray, stops: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """int64[r], the numbers that groups[m] of six bits write; each ends at one of stops[r] and has so many
    groups as sizes[r] says."""
    if not len(stops):
        return np.empty(0, np.int64)
    starts = stops - sizes + 1
    within = np.arange(len(groups)) - np.repeat(starts, sizes)
    shifts = _BITS * np.minimum(within, _MOST_GROUPS)
    values = np.add.reduceat((groups & 31) << shifts, starts)
    negative = (groups[stops] & _SIGN) != 0
    return values - (negative.astype(np.int64) << (_BITS * np.minimum(sizes, _MOST_GROUPS)))


def _sums(
    values: np.ndarray, runs: np.ndarray, pixels: np.ndarray, wrong: np.ndarray
) -> tuple[np.ndarray, str | None]:
    """Adds up values[r], of which runs[n] belong to each mask; see `inside_pixels`."""
    mask = np.repeat(np.arange(len(runs)), runs)
    place = np.arange(len(values)) - np.repeat(np.cumsum(runs) - runs, runs)
    counts = _counts(values, place)
    impossible = (counts < 0) | (counts > _MOST_COUNT)
    wrong[mask[impossible]] = True
    counts[impossible] = 0
    inside, sums = (
        np.bincount(mask[chosen], counts[chosen], len(runs)).astype(np.int64)
        for chosen in (place % 2 == 1, slice(None))
    )
    broken = wrong | (sums != pixels)
    if not broken.any():
        return inside, None
    position = int(np.flatnonzero(broken)[0])
    reason = f"has run lengths of {sums[position]:,} pixels, and its image has {pixels[position]:,}"
    if wrong[position]:
        reason = "has a text under counts that is no run-length code"
    return np.where(broken, -1, inside), reason


def _counts(values: np.ndarray, place: np.ndarray) -> np.ndarray:
    """The counts of which `values` are the differences; place[r] is that of each in its mask."""
    counts = np.empty(len(values), np.int64)
    for parity in (0, 1):  # a count depends on those of its own parity only
        chosen = np.flatnonzero(place % 2 == parity)
        total = np.cumsum(values[chosen])
        heads = np.flatnonzero(place[chosen] <= 2)  # the first three are written as they are
        before = (total - values[chosen])[heads]
        counts[chosen] = total - np.repeat(before, np.diff(heads, append=len(chosen)))
    return counts
