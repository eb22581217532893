"""Pairs of frames of one video, some frames apart, from a folder of frames for each video.

root/video-1/00000.jpg  root/video-1/00001.jpg …
root/video-2/00000.jpg …
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from pathlib import Path

from siamtransfer.data.folders import FileImages
from siamtransfer.data.listing import PathTable, list_images, require_folder
from siamtransfer.data.pairs import PairImages
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import first_few, printable

COLUMNS = ("frame", "later")
"""The names of the two columns."""


def open_frames(root: str | Path, gap: int, *, name: str = "pairs", split: str = "train") -> PairImages:
    """Frame t and frame t + gap of every video below `root`, for every t that has such a frame.

    Every folder that holds images itself, `root` too, is a video. Its frames are in the order of their names,
    in which numbers count as numbers. With a gap of 0 both views are of one frame.

    Raises:
        UserError: there is no such folder or no image in it, or every video has too few frames.
    """
    folder = require_folder(root)
    listing = list_images(folder)
    videos: defaultdict[str, list[str]] = defaultdict(list)
    for path in map(os.fsdecode, listing.paths):
        videos[path.rpartition("/")[0]].append(path)
    if not videos:
        raise UserError(
            f"{printable(folder)} holds no image: data.root has a folder of frames for each video"
        )
    first, later, short = list[bytes](), list[bytes](), list[str]()
    for video in sorted(videos):
        frames = [os.fsencode(path) for path in sorted(videos[video], key=_in_time)]
        if len(frames) <= gap:
            short.append(video or ".")
        first += frames[: len(frames) - gap] if gap < len(frames) else []
        later += frames[gap:]
    if not first:
        longest = max(map(len, videos.values()))
        raise UserError(
            f"data.frames_gap is {gap}, and the longest video of {printable(folder)} has {longest} frames, "
            f"so no two are so far apart: at most {longest - 1} is possible"
        )
    remarks = [
        f"{len(first):,} pairs of frames that are {gap} apart, of {len(videos) - len(short)} of the "
        f"{len(videos)} videos in {printable(folder)}"
    ]
    if short:
        remarks.append(f"videos of {gap} frames or fewer give no pair: {printable(first_few(short))}")
    columns = [
        FileImages(f"{name}:{column}", split, PathTable(folder, paths))
        for column, paths in zip(COLUMNS, (first, later), strict=True)
    ]
    return PairImages(name, split, columns, COLUMNS, remarks)


def _in_time(path: str) -> tuple[list[tuple[int, int, str]], str]:
    """The key that sorts frames by their names, in which runs of digits count as numbers."""
    pieces = re.findall(r"([0-9]+)|([^0-9]+)", path.rpartition("/")[2])
    return [(0, int(digits), "") if digits else (1, 0, text) for digits, text in pieces], path
