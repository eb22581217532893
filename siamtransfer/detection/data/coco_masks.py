"""The masks of a file in COCO's format: polygons, or run lengths as a list or as COCO's compressed text.

pycocotools rasterises what it is given: a coordinate that is no number ends the process, one of a billion
takes all memory, and counts of another image are written beyond their array. So everything is checked here.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from siamtransfer.detection.data.entries import Entries, are_numbers, first, numbers_of, shown, whole
from siamtransfer.detection.data.near_image import EDGE, beyond, far
from siamtransfer.detection.data.run_lengths import inside_pixels

KEY = "segmentation"
POLYGON = 6  # coordinates of a triangle, the least that has an inside
MOST_OUTLINE = 4_000_000
"""Pixels along the outline of an object; pycocotools takes 100 bytes for each."""
_AT_ONCE = 8192  # annotations whose coordinates are looked at together
Mask = list[list[float]] | dict[str, Any]


@dataclass
class Masks:
    """What the masks of n annotations are.

    masks: polygons with three corners or more, compressed run lengths, or None; pixels: int64[n], those
    inside run lengths, -1 for others; cut: how often polygons without three corners were passed over; bare:
    where no other was left; empty: how many run lengths have no pixel inside; outside: how many objects have
    polygons that reach more than a pixel beyond their image.
    """

    masks: list[Mask | None]
    pixels: np.ndarray
    cut: int = 0
    bare: list[int] = field(default_factory=list)
    empty: int = 0
    outside: int = 0


def read_masks(entries: Entries, heights: np.ndarray, widths: np.ndarray) -> Masks:
    """The checked masks; heights and widths: int64[n], those of the image of each annotation.

    Raises:
        UserError: a mask is neither polygons nor run lengths of its image; names it and the cure.
    """
    found: list[Any] = entries.column(KEY)
    masks = Masks(found, np.full(len(found), -1, np.int64))
    polygons, runs = [], []
    for position, mask in enumerate(found):
        if mask is None or mask in ([], {}):
            found[position] = None
        elif type(mask) is list:
            polygons.append(position)
        elif type(mask) is dict:
            runs.append(position)
        else:
            raise _neither(entries, position, mask)
    for start in range(0, len(polygons), _AT_ONCE):
        _check_polygons(entries, masks, np.array(polygons[start : start + _AT_ONCE]), heights, widths)
    for start in range(0, len(runs), _AT_ONCE):
        _read_runs(entries, masks, np.array(runs[start : start + _AT_ONCE]), heights, widths)
    return masks


def _neither(entries: Entries, position: int, mask: Any) -> Exception:
    return entries.wrong(
        position,
        f"has a mask that is neither polygons nor run lengths, {shown(mask)}",
        "give a list of polygons, each a list x, y, x, y …, or leave the key segmentation out",
    )


def _check_polygons(
    entries: Entries, masks: Masks, places: np.ndarray, heights: np.ndarray, widths: np.ndarray
) -> None:
    """Checks the polygons of the annotations at `places`, and takes out those without three corners."""
    lists: list[Any] = [masks.masks[place] for place in places]
    polygons = list(itertools.chain.from_iterable(lists))
    values = None
    if {list}.issuperset(map(type, polygons)):
        values = numbers_of(list(itertools.chain.from_iterable(polygons)))
    if values is None:
        wrong = first(lists, _is_numeric)
        raise _neither(entries, int(places[wrong]), lists[wrong])
    lengths = np.fromiter(map(len, polygons), np.int64, len(polygons))
    owner = np.repeat(places, np.fromiter(map(len, lists), np.int64, len(lists)))
    if (odd := np.flatnonzero(lengths % 2)).size:
        raise entries.wrong(
            int(owner[odd[0]]), f"has a polygon of {lengths[odd[0]]} numbers, and each x is followed by its y"
        )
    corners, of_polygon = values.reshape(-1, 2), np.repeat(np.arange(len(polygons)), lengths // 2)
    size = np.stack([widths, heights], 1)[owner]
    _check_corners(entries, corners, owner[of_polygon], size[of_polygon])
    kept = np.flatnonzero(lengths >= POLYGON)
    if len(kept) < len(polygons):
        _take_out(masks, places, lists)
    if len(kept):
        _check_extents(entries, masks, owner, size, kept, lengths // 2, corners)


def _is_numeric(polygons: list[Any]) -> bool:
    return all(type(polygon) is list and numbers_of(polygon) is not None for polygon in polygons)


def _check_corners(entries: Entries, corners: np.ndarray, owner: np.ndarray, size: np.ndarray) -> None:
    """Raises UserError where one of corners[m,2] is no number, or far from its image of size[m,2]."""
    wrong = np.flatnonzero(far(corners, size).any(axis=1))
    if not wrong.size:
        return
    (x, y), (width, height) = corners[wrong[0]], size[wrong[0]]
    what = f"far from its image of {width} x {height} pixels" if np.isfinite((x, y)).all() else "no numbers"
    raise entries.wrong(int(owner[wrong[0]]), f"has a polygon with the corner {x:g}, {y:g}, which is {what}")


def _take_out(masks: Masks, places: np.ndarray, lists: Sequence[list[list[float]]]) -> None:
    """Takes polygons without three corners out of the masks at `places`, and notes it."""
    for place, polygons in zip(places.tolist(), lists, strict=True):
        kept = [polygon for polygon in polygons if len(polygon) >= POLYGON]
        if len(kept) < len(polygons):
            masks.cut += bool(kept)
            masks.masks[place] = kept or None
            if not kept:
                masks.bare.append(place)


def _check_extents(
    entries: Entries,
    masks: Masks,
    owner: np.ndarray,
    size: np.ndarray,
    kept: np.ndarray,
    counts: np.ndarray,
    corners: np.ndarray,
) -> None:
    """Checks that each object reaches into its image and that its outline is not endless.

    owner and size[k,2] of all polygons, of which only those at `kept` count; counts[k]: their corners.
    """
    used = np.zeros(len(counts), bool)
    used[kept] = True
    chosen, counts = corners[np.repeat(used, counts)], counts[kept]
    starts = np.cumsum(counts) - counts
    least, most = (reduce.reduceat(chosen, starts) for reduce in (np.minimum, np.maximum))
    of_object = np.flatnonzero(np.diff(owner[kept], prepend=-1))
    least, most = np.minimum.reduceat(least, of_object), np.maximum.reduceat(most, of_object)
    places, sides = owner[kept][of_object], size[kept][of_object]
    apart = np.flatnonzero(((most < -EDGE) | (least > sides + EDGE)).any(axis=1))
    if apart.size:
        width, height = sides[apart[0]]
        raise entries.wrong(
            int(places[apart[0]]), f"has a mask that lies outside its image of {width} x {height} pixels"
        )
    masks.outside += int(beyond(least, most, sides).sum())
    total = np.add.reduceat(counts, of_object)
    for k in np.flatnonzero(total * (most - least).sum(axis=1) > MOST_OUTLINE):
        polygons = masks.masks[places[k]]
        assert isinstance(polygons, list)
        if (length := sum(map(_outline, polygons))) > MOST_OUTLINE:
            raise entries.wrong(
                int(places[k]),
                f"has an outline of {length:,.0f} pixels, more than the {MOST_OUTLINE:,} of any object",
            )


def _outline(polygon: list[float]) -> float:
    """The steps that pycocotools makes along the outline, in pixels."""
    corners = np.array(polygon, np.float64).reshape(-1, 2)
    return float(np.abs(corners - np.roll(corners, 1, axis=0)).max(axis=1).sum())


def _read_runs(
    entries: Entries, masks: Masks, places: np.ndarray, heights: np.ndarray, widths: np.ndarray
) -> None:
    """Checks the run lengths of the annotations at `places`; compresses those that are lists."""
    texts, of_texts = [], []
    for place in places.tolist():
        mask: Any = masks.masks[place]
        size = [int(heights[place]), int(widths[place])]
        _check_size(entries, place, mask, size)
        counts = mask.get("counts")
        if isinstance(counts, str):
            texts.append(counts)
            of_texts.append(place)
            if set(map(type, mask["size"])) != {int}:
                masks.masks[place] = {"size": size, "counts": counts}
        elif isinstance(counts, list):
            runs = _runs(entries, place, counts, size)
            masks.masks[place] = _compressed(runs, size)
            masks.pixels[place] = sum(runs[1::2])
        else:
            raise entries.wrong(place, f"has a mask without run lengths, its counts are {shown(counts)}")
    chosen = np.array(of_texts, np.int64)
    inside, reason = inside_pixels(texts, heights[chosen] * widths[chosen])
    if reason is not None:
        raise entries.wrong(of_texts[first(inside, lambda pixels: pixels >= 0)], reason)
    masks.pixels[chosen] = inside
    masks.empty += int((masks.pixels[places] == 0).sum())


def _check_size(entries: Entries, place: int, mask: dict[str, Any], size: list[int]) -> None:
    given = mask.get("size")
    if isinstance(given, list) and are_numbers(given):
        if given == size:
            return
        if given == size[::-1]:
            raise entries.wrong(
                place,
                f"has a mask of size {shown(given)}, its image's width and height in the wrong order",
                f"write the height first, {size}, if its counts go down the columns of this image",
            )
    raise entries.wrong(
        place, f"has a mask of size {shown(given)}, not its image's height and width, which are {size}"
    )


def _runs(entries: Entries, place: int, counts: list[Any], size: list[int]) -> list[int]:
    """Run lengths of a list as integers that add up to the pixels of the image."""
    wholes = counts if {int}.issuperset(map(type, counts)) else map(whole, counts)
    runs = [run for run in wholes if run is not None and run >= 0]
    if len(runs) < len(counts):
        wrong = first(counts, lambda count: (run := whole(count)) is not None and run >= 0)
        raise entries.wrong(
            place, f"has the run length {shown(counts[wrong])}, and each is a count of pixels from 0 on"
        )
    total = sum(runs)
    if total != size[0] * size[1]:
        raise entries.wrong(
            place,
            f"has run lengths that do not add up to its image's pixels: {shown(total)}, not "
            f"{size[0] * size[1]:,}",
        )
    return runs


def _compressed(runs: list[int], size: list[int]) -> dict[str, Any]:
    from pycocotools import mask as run_lengths

    compressed: dict[str, Any] = run_lengths.frPyObjects({"size": size, "counts": runs}, *size)
    return compressed


def encoded(mask: Mask, height: int, width: int) -> dict[str, Any]:
    """A mask as compressed run lengths, as COCO's own tools make them."""
    if isinstance(mask, dict):
        return mask
    from pycocotools import mask as run_lengths

    merged: dict[str, Any] = run_lengths.merge(run_lengths.frPyObjects(mask, height, width))
    return merged
