"""Videos with a mask for every frame, in the folders of DAVIS 2017.

    ROOT/JPEGImages/480p/VIDEO/00000.jpg …    ROOT/Annotations/480p/VIDEO/00000.png …
    ROOT/ImageSets/2017/val.txt               a video a line

A mask is a PNG of 8 bits with a palette or grey: 0 is the background, 1 to 254 are objects. VOID pixels count
as background, as in the official semi-supervised evaluation.

Legend: H and W pixels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from siamtransfer.data.decode import FORMATS, decode
from siamtransfer.data.folders import FileImages
from siamtransfer.data.listing import PathTable
from siamtransfer.data.orientation import stored_size
from siamtransfer.data.pixel_form import SHOWN
from siamtransfer.segmentation.data.masked_images import size_mismatch
from siamtransfer.segmentation.data.read_mask import read_mask
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.small_files import read_small_text
from siamtransfer.utils.text import first_few, printable

VOID = 255
FRAMES, MASKS, LISTS = "JPEGImages", "Annotations", "ImageSets/2017"
FRAME_ENDINGS = (".jpg", ".jpeg", ".png")
MOST_BYTES = 2**24  # of a list
FEWEST = 3  # frames; the first and the last are not scored


@dataclass(frozen=True)
class Video:
    """The files of a video; frame and mask i belong together.

    Attributes:
        objects: the numbers of the objects in the first mask, rising.
    """

    name: str
    frames: tuple[Path, ...]
    masks: tuple[Path, ...]
    objects: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.frames)

    def image(self, index: int) -> np.ndarray:
        """Frame `index` as uint8[H, W, 3], as viewers show it; raises UnreadableImage."""
        return decode(self.frames[index], form=SHOWN)

    def mask(self, index: int) -> np.ndarray:
        """The numbers of the objects, uint8[H, W]; void pixels, and objects that the first mask does not
        have, are 0. Raises UserError."""
        return _of_objects(read_mask(str(self.masks[index])), self.objects)

    def describe(self, index: int) -> str:
        """The path of frame `index`."""
        return printable(str(self.frames[index]))


@dataclass(frozen=True)
class Videos:
    """The videos of a split, in the order of its list.

    Attributes:
        remarks: what a user should know about them, a sentence each.
    """

    root: Path
    split: str
    videos: tuple[Video, ...]
    remarks: tuple[str, ...]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the relative paths and the sizes of all frames and masks, the same for a copy."""
        paths = [
            str(path.relative_to(self.root)).encode() for v in self.videos for path in v.frames + v.masks
        ]
        return FileImages("davis", self.split, PathTable(self.root, paths)).fingerprint


def open_videos(
    root: str | Path, split: str = "val", resolution: str = "480p", only: Sequence[str] = ()
) -> Videos:
    """Opens the videos of a split, or `only` those of it, after a look at every file: at the header of every
    frame and at all of every mask.

    Raises:
        UserError: a folder, a list, a frame or a mask is missing or unusable; names it and the cure.
    """
    root = Path(root)
    names = _names(root, split, only)
    for folder in (FRAMES, MASKS):
        if not (root / folder / resolution).is_dir():
            raise UserError(
                f"{printable(str(root / folder))} has no folder {resolution}; data.resolution names it, "
                f"as in ROOT/{folder}/480p/VIDEO"
            )
    videos = tuple(_open(root, resolution, name) for name in names)
    return Videos(root, split, videos, tuple(remark for video in videos for remark in _check(video)))


def _names(root: Path, split: str, only: Sequence[str]) -> list[str]:
    """The names in the list of a split."""
    path = root / LISTS / f"{split}.txt"
    try:
        names = [line.strip() for line in read_small_text(path, MOST_BYTES).splitlines() if line.strip()]
    except UserError as error:
        where = printable(str(path))
        why = f"({error})" if path.exists() else f"{where} (there is no such file)"
        raise UserError(
            f"cannot read the list of videos {why}; data.root is the folder with {FRAMES}, {MASKS} and "
            "ImageSets; of your own videos write that list, a folder's name a line"
        ) from error
    if outside := [name for name in names if name.startswith("/") or ".." in re.split(r"[/\\]", name)]:
        raise UserError(
            f"{printable(str(path))} names {printable(outside[0])}, which lies outside of the set; write the "
            "name of a folder a line"
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names or twice:
        what = f"names {twice[0]} twice" if twice else "names no video"
        raise UserError(f"{printable(str(path))} {what}; write every video's folder once, a name a line")
    if unknown := [name for name in only if name not in names]:
        raise UserError(f"data.videos: {split}.txt has no video {unknown[0]!r}; it has {first_few(names)}")
    return [name for name in names if name in only] if only else names


def _open(root: Path, resolution: str, name: str) -> Video:
    folders = {kind: root / kind / resolution / name for kind in (FRAMES, MASKS)}
    frames, masks = _files(folders[FRAMES], FRAME_ENDINGS), _files(folders[MASKS], (".png",))
    _require_pairs(name, folders, frames, masks)
    stems = sorted(frames)
    return Video(
        name,
        tuple(frames[stem] for stem in stems),
        tuple(masks[stem] for stem in stems),
        _objects_of(masks[stems[0]]),
    )


def _files(folder: Path, endings: tuple[str, ...]) -> dict[str, Path]:
    """The files with these endings by name without ending.

    Raises:
        UserError: the folder cannot be listed, or two files have one name.
    """
    try:
        paths = [p for p in folder.iterdir() if p.suffix.lower() in endings and not p.name.startswith(".")]
    except OSError as error:
        raise UserError(
            f"cannot list {printable(str(folder))}: {error.strerror}; every video of the list needs a folder "
            f"below {FRAMES} and one below {MASKS}"
        ) from error
    files: dict[str, Path] = {}
    for path in sorted(paths):
        if path.stem in files:
            raise UserError(
                f"{printable(str(folder))} has two files of one frame, {files[path.stem].name} and "
                f"{path.name}; "
                "take one of them out"
            )
        files[path.stem] = path
    return files


def _require_pairs(
    name: str, folders: dict[str, Path], frames: dict[str, Path], masks: dict[str, Path]
) -> None:
    """Raises UserError for too few frames, a frame without a mask, a mask without a frame, or a gap in the
    numbers."""
    if len(frames) < FEWEST:
        raise UserError(
            f"{printable(str(folders[FRAMES]))} has {len(frames)} frames ({', '.join(FRAME_ENDINGS)}), and "
            f"{FEWEST} are needed, because the first and the last are not scored; add frames or take "
            f"{name} out of the list"
        )
    for kind, one, there, other, ending in (
        ("frame", frames, masks, folders[MASKS], ".png"),
        ("mask", masks, frames, folders[FRAMES], ".jpg"),
    ):
        if lacking := sorted(stem for stem in one if stem not in there):
            raise UserError(
                f"{len(lacking)} of the {len(one)} {kind}s of {name} stand alone: of "
                f"{one[lacking[0]].name} there is no {printable(str(other / (lacking[0] + ending)))}; "
                "every frame needs a mask, and every mask a frame"
            )
    numbers = sorted(int(stem) for stem in frames if stem.isascii() and stem.isdigit())
    steps = np.diff(numbers)
    if len(numbers) == len(frames) and len(set(steps.tolist())) > 1:
        at = int(np.flatnonzero(steps != steps.min())[0])
        raise UserError(
            f"the frames of {name} are not evenly numbered: {numbers[at + 1]} follows {numbers[at]}; put the "
            f"missing frames into {printable(str(folders[FRAMES]))}, or number them anew"
        )


def _objects_of(path: Path) -> tuple[int, ...]:
    """The objects in a first mask."""
    values = np.unique(_read(path))
    objects = tuple(int(value) for value in values if 0 < value < VOID)
    if not objects:
        cure = f"give objects the numbers 1 to {VOID - 1}, for {VOID} means void"
        if VOID not in values:
            cure = "begin the video where the objects are seen, or draw them"
        raise UserError(
            f"the first mask {printable(str(path))} shows no object, so there is nothing to follow; {cure}"
        )
    return objects


def _check(video: Video) -> list[str]:
    """Looks at every file of a video; returns remarks."""
    size: tuple[int, int] | None = None
    later: set[int] = set()
    for frame, path in zip(video.frames, video.masks, strict=True):
        try:
            height, width = stored_size(frame, FORMATS).size(SHOWN.orientation)
        except Exception as error:  # Pillow's readers raise errors of many types for damaged files
            why = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"cannot read the frame {printable(str(frame))}: {why}; mend the file") from error
        mask = _read(path)
        if mask.shape != (height, width):
            raise UserError(
                size_mismatch(printable(str(frame)), (height, width), printable(str(path)), mask.shape)
            )
        size = size or (height, width)
        if size != (height, width):
            raise UserError(
                f"{printable(str(frame))} has {width} x {height} pixels, and the frames before it {size[1]} "
                "x "
                f"{size[0]}; all frames of a video need one size"
            )
        later |= {int(value) for value in np.unique(mask)}
    found = sorted(later - {0, VOID, *video.objects})
    expected = set(range(1, max(video.objects) + 1))
    remarks = []
    if found:
        remarks.append(
            f"{video.name} shows objects that its first mask does not have, which are background: "
            f"{first_few([str(value) for value in found])}"
        )
    if missing := sorted(expected - set(video.objects)):
        remarks.append(
            f"the first mask of {video.name} does not number its objects from 1 without a gap; not there and "
            f"not scored: {first_few([str(value) for value in missing])}"
        )
    return remarks


def _read(path: Path) -> np.ndarray:
    """The values in a mask of 8 bits; raises UserError."""
    mask = read_mask(str(path))
    if mask.dtype != np.uint8:
        raise UserError(
            f"the mask {printable(str(path))} has 16 bits; save it with 8, with the numbers of the "
            "objects as palette indices or grey values"
        )
    return mask


def _of_objects(mask: np.ndarray, objects: tuple[int, ...]) -> np.ndarray:
    kept = np.zeros(256, np.uint8)
    kept[list(objects)] = objects
    return kept[mask]
