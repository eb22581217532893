"""COCO's panoptic PNGs: a pixel belongs to the segment R + 256 G + 65536 B, 0 to none (void)."""

from __future__ import annotations

import hashlib
import zlib
from typing import Any, NamedTuple

import numpy as np
from joblib import Parallel, cpu_count, delayed
from PIL import Image

from siamtransfer.data.decode import FORMATS
from siamtransfer.detection.data.dataset_split import ImageRecord
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say
from siamtransfer.utils.regular_files import refuse_special
from siamtransfer.utils.text import printable

SEGMENTS, SEGMENT_FILE = "segments_info", "pan_seg_file_name"
"""Keys of a record, called as in Detectron2: the segments of the image, and the path of its PNG."""
_ALONE = 2000  # PNGs that one process reads in the time that others need to start
_AT_ONCE, _MOST_PROCESSES = 32, 8


def read_segment_ids(path: str, size: tuple[int, int] | None = None) -> np.ndarray:
    """The segments of a PNG, int32[H,W].

    Raises:
        UserError: it cannot be read, is no image of three channels of 8 bits, or has not the height and width
            `size`, where these are given.
    """
    refuse_special(path)
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.mode not in ("RGB", "RGBA"):
                raise UserError(
                    f"{printable(path)} has the mode {image.mode}, and panoptic PNGs are RGB; give the "
                    "folder of COCO's panoptic PNGs, not of class masks"
                )
            if size is not None and image.size != size[::-1]:
                raise UserError(
                    f"{printable(path)} is {image.width} x {image.height} pixels and its image {size[1]} x "
                    f"{size[0]}; give the PNGs of these images"
                )
            pixels = np.asarray(image.convert("RGB")).astype(np.int32)
    except UserError:
        raise
    except Exception as error:  # a damaged file makes Pillow's readers raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"cannot read the panoptic PNG {printable(path)} ({reason}); restore it, or complete the download"
        ) from error
    return pixels[..., 0] + 256 * pixels[..., 1] + 65536 * pixels[..., 2]


class Look(NamedTuple):
    """What is kept of a PNG: the sentence about what is wrong with it, or None; the CRC of its segments."""

    problem: str | None
    crc: int = 0


def check_pngs(records: list[ImageRecord], name: str) -> str:
    """Compares every PNG with the segments of its record; several processes read many.

    Returns a digest of the segments of all PNGs, in the order of the records.

    Raises:
        UserError: one cannot be read, has another size than its image or other segments; names the first.
    """
    processes = 1
    if len(records) >= _ALONE:
        processes = min(_MOST_PROCESSES, cpu_count())
        say(f"reading the {len(records):,} panoptic PNGs of {name} in {processes} processes")
    tasks = (
        [
            (
                record[SEGMENT_FILE],
                (record["height"], record["width"]),
                [segment["id"] for segment in record[SEGMENTS]],
            )
            for record in records[start : start + _AT_ONCE]
        ]
        for start in range(0, len(records), _AT_ONCE)
    )
    parallel = Parallel(processes, return_as="generator", pre_dispatch=4 * processes, batch_size=1)
    looks = [look for found in parallel(delayed(_looks)(task) for task in tasks) for look in found]
    problems = [look.problem for look in looks if look.problem is not None]
    if problems:
        count = len(problems)
        others = f" ({count} of the {len(records)} panoptic PNGs of {name} are wrong)" if count > 1 else ""
        raise UserError(problems[0] + others)
    return hashlib.sha256(repr([look.crc for look in looks]).encode()).hexdigest()


def _looks(task: list[tuple[str, tuple[int, int], list[int]]]) -> list[Look]:
    return [_look(*item) for item in task]


def _look(path: str, size: tuple[int, int], segments: list[int]) -> Look:
    try:
        ids = read_segment_ids(path, size)
    except UserError as error:
        return Look(str(error))
    problem = _contradiction(ids, path, segments)
    return Look(problem, zlib.crc32(ids.tobytes()))


def _contradiction(ids: np.ndarray, path: str, segments: list[int]) -> str | None:
    """A sentence about ids[H,W] of the PNG that its segments contradict."""
    where = printable(path)
    present = set(np.unique(ids).tolist()) - {0}
    if unknown := sorted(present - set(segments)):
        return f"{where} has the segment {unknown[0]}, which the JSON does not list; restore both files"
    if unseen := sorted(set(segments) - present):
        return f"{where} has no pixel of the segment {unseen[0]} that the JSON lists; restore both files"
    return None


def semantic_target(ids: np.ndarray, segments: list[dict[str, Any]], things: int, ignore: int) -> np.ndarray:
    """The target of the semantic head of a panoptic FPN, uint8[H,W]: 0 for all things, 1 and more for stuff,
    `ignore` for void. ids: int32[H,W]."""
    keys = np.array([0, *(segment["id"] for segment in segments)])
    values = np.array(
        [ignore, *(max(0, segment["category_id"] - things + 1) for segment in segments)], np.uint8
    )
    order = np.argsort(keys)
    return values[order][np.searchsorted(keys[order], ids)]
