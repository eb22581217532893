"""Sets of images with depth maps by name: NYU Depth v2 as it is usually unpacked, your own folders, rooms.

NYU Depth v2 (Silberman et al., ECCV 2012) has the layout of BTS (arXiv 1907.10326): lists whose lines hold an
image, its depth map and a focal length, and files SCENE/rgb_*.jpg with SCENE/sync_depth_*.png.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from siamtransfer.data.listing import Listing, PathTable, list_folders, list_images, require_folder
from siamtransfer.data.pixel_form import RGB as PUBLISHED
from siamtransfer.data.pixel_form import SHOWN, pixel_form
from siamtransfer.evaluation.depth.config import NYU
from siamtransfer.evaluation.depth.data.depth_files import DepthFiles
from siamtransfer.evaluation.depth.data.depth_images import DepthImages
from siamtransfer.evaluation.depth.data.rooms import NAME as ROOMS
from siamtransfer.evaluation.depth.data.rooms import DepthRooms
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.small_files import read_small_file
from siamtransfer.utils.text import first_few, printable

OWN = "depth"
NAMES = (ROOMS, NYU, OWN)
SPLITS = {NYU: ("train", "test"), ROOMS: ("train", "test")}
NYU_LISTS = ("nyudepthv2_{split}_files_with_gt.txt", "nyu_{split}.txt", "{split}.txt")
LIST_FOLDERS = ("", "train_test_inputs", "data_splits", "filenames")
IMAGE_FOLDERS = (
    "",
    "sync",
    "{split}",
    "official_splits/{split}",
    "nyu_depth_v2/official_splits/{split}",
    "nyu_depth_v2/sync",
)
COLOURS, DEPTH = "rgb_", "sync_depth_"
OWN_IMAGES = ("images", "image", "rgb")
OWN_DEPTHS = ("depth", "depths", "depth_maps")
MOST_BYTES = 2**27  # of a list; two million pairs have as many
NO_DEPTH = "None"
"""What stands in a list in place of a depth map that does not exist."""
_LAYOUTS = "ROOT/SPLIT/images and ROOT/SPLIT/depth, or ROOT/images/SPLIT and ROOT/depth/SPLIT"


def open_depth(
    name: str,
    *,
    root: str | Path | None = None,
    split: str = "train",
    scale: float = 1000.0,
    size: int | None = None,
    count: int | None = None,
    orientation: str | None = None,
    background: str | None = None,
    max_pixels: int | None = None,
) -> DepthImages:
    """Opens a set by its name, one of NAMES.

    Args:
        root: the folder of a set on disk.
        scale: the value of a metre in the files.
        size: side in pixels of the embedded rooms.
        count: rooms that are rendered; of files the number that is taken, spread evenly over the set.
        orientation, background: of files, see `PixelForm`; None is shown on white for images of your own,
            stored and drop for nyu.
        max_pixels: the most that an image of a file may have; None is what Pillow allows.

    Raises:
        UserError: no such name or split, an argument that the set does not take or one that it needs, or
            anything that is wrong with the set itself.
    """
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(
            f"data.name: there is no set with depth {name!r}{hint} (there are {', '.join(NAMES)})"
        )
    if split not in SPLITS.get(name, (split,)):
        raise UserError(f"data.split: {name} has no split {split!r}; choose from {', '.join(SPLITS[name])}")
    if count is not None and count < 1:
        raise UserError(f"data.count is {count}, but at least one image is needed; raise it")
    form = pixel_form(
        orientation=orientation,
        background=background,
        max_pixels=max_pixels,
        usual=SHOWN if name == OWN else PUBLISHED,
    )
    if name == ROOMS:
        given: dict[str, object] = {"root": root, "orientation": orientation, "background": background}
        given["max_pixels"] = max_pixels
        for key, value in given.items():
            if value is not None:
                raise UserError(f"data.{key}: {name} are rendered and do not take it; leave it out")
        return DepthRooms(split, size, count)
    if size is not None:
        raise UserError(f"data.size: {name} does not take it; leave it out")
    if root is None:
        raise UserError(f"data.root: {name} needs it; name the folder of the set")
    files = (open_nyu if name == NYU else open_own)(root, split, scale)
    files.take_form(form, orientation_stated=orientation is not None)
    return files if count is None else files.part(count)


def open_nyu(root: str | Path, split: str, scale: float) -> DepthFiles:
    """NYU Depth v2 by its list, or without one all pairs below ROOT/SPLIT.

    Raises:
        UserError: there is neither list nor folder, or a file is missing.
    """
    folder = require_folder(root)
    candidates = [folder / inner / name.format(split=split) for inner in LIST_FOLDERS for name in NYU_LISTS]
    for path in candidates:
        if path.is_file():
            return _listed(folder, path, split, scale)
    inner = folder / split
    if not inner.is_dir():
        raise UserError(
            f"{printable(folder)} holds neither a list of the split {split} "
            f"({NYU_LISTS[0].format(split=split)}) nor a folder {split}: put the list there, or unpack "
            f"SCENE/{COLOURS}*.jpg and SCENE/{DEPTH}*.png into {split}"
        )
    return _beside(inner, split, scale)


def _listed(folder: Path, path: Path, split: str, scale: float) -> DepthFiles:
    """The pairs of a list, below the first folder that holds its first image."""
    pairs, without = _read_list(path)
    first = pairs[0][0]
    for inner in IMAGE_FOLDERS:
        base = folder / inner.format(split=split)
        if (base / first).is_file():
            break
    else:
        raise UserError(
            f"{printable(path)} names {printable(first)}, which is in none of the folders "
            f"{', '.join(inner.format(split=split) or '.' for inner in IMAGE_FOLDERS)} of "
            f"{printable(folder)}: unpack the images there"
        )
    images, depths = ([os.fsencode(name) for name in column] for column in zip(*pairs, strict=True))
    files = DepthFiles(NYU, split, PathTable(base, images), PathTable(base, depths), scale)
    if without:
        files.remarks.append(f"{without} images of {path.name} have no depth map and are left out")
    return files


def _read_list(path: Path) -> tuple[list[tuple[str, str]], int]:
    """The pairs of relative paths of a list, in its order, and the number of images without a depth map."""
    pairs: list[tuple[str, str]] = []
    without = 0
    content = read_small_file(path, MOST_BYTES)
    if b"\0" in content:
        raise UserError(f"{printable(path)} is UTF-16, or no text: it holds bytes of zero; save it as UTF-8")
    text = content.decode("utf-8-sig", "surrogateescape")
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if len(words) not in (2, 3):
            raise UserError(
                f"{printable(path)}, line {number} has {len(words)} words; a line holds an image, its "
                f"depth map and perhaps a focal length"
            )
        if words[1] == NO_DEPTH:
            without += 1
        else:
            pairs.append((words[0].lstrip("/"), words[1].lstrip("/")))
    if not pairs:
        raise UserError(f"{printable(path)} names no image with a depth map; give a whole list")
    return pairs, without


def _beside(folder: Path, split: str, scale: float) -> DepthFiles:
    """All rgb_* below a folder with the sync_depth_* beside them."""
    names = [os.fsdecode(path) for path in list_images(folder).paths]
    depths = {_key(name, DEPTH): name for name in names if name.rpartition("/")[2].startswith(DEPTH)}
    images = [name for name in names if name.rpartition("/")[2].startswith(COLOURS)]
    if not images:
        raise UserError(
            f"{printable(folder)} holds no SCENE/{COLOURS}* with SCENE/{DEPTH}*; for folders of images and "
            f"depth maps take --data.name {OWN}"
        )
    missing = [name for name in images if _key(name, COLOURS) not in depths]
    if missing:
        raise UserError(
            f"{len(missing)} of the {len(images)} images in {printable(folder)} have no {DEPTH}* beside "
            f"them, the first is {printable(missing[0])}; add the depth maps or take the images out"
        )
    chosen = [os.fsencode(depths[_key(name, COLOURS)]) for name in images]
    tables = PathTable(folder, [os.fsencode(name) for name in images]), PathTable(folder, chosen)
    return DepthFiles(NYU, split, *tables, scale)


def _key(name: str, prefix: str) -> str:
    """The path without the prefix of its file and the ending."""
    above, _, file = name.rpartition("/")
    return f"{above}/{file.removeprefix(prefix).rpartition('.')[0]}"


def open_own(root: str | Path, split: str, scale: float) -> DepthFiles:
    """Folders of images and of depth maps; a map has the relative path of its image, whatever the ending.

    Raises:
        UserError: no layout fits, or images have no depth map.
    """
    folder = require_folder(root)
    for above, below in ((folder / split, ""), (folder, split)):
        pair = [next(filter(Path.is_dir, (above / name / below for name in names)), None)
                for names in (OWN_IMAGES, OWN_DEPTHS)]  # fmt: skip
        if pair[0] is not None and pair[1] is not None:
            return _paired(pair[0], pair[1], split, scale)
    inside = first_few(list_folders(folder)) or "no folders"
    raise UserError(
        f"{printable(folder)} holds {printable(inside)}, which is no layout of images and depth maps for "
        f"the split {split}; arrange them as {_LAYOUTS}"
    )


def _paired(image_folder: Path, depth_folder: Path, split: str, scale: float) -> DepthFiles:
    images, depths = list_images(image_folder), list_images(depth_folder)
    by_stem = dict(zip(_stems(depths), depths.paths, strict=True))
    if len(by_stem) < len(depths.paths):
        raise UserError(f"{printable(depth_folder)} has two depth maps of one name; take one of them out")
    stems = _stems(images)
    missing = [number for number, stem in enumerate(stems) if stem not in by_stem]
    if missing:
        first = printable(os.fsdecode(images.paths[missing[0]]))
        raise UserError(
            f"{len(missing)} of the {len(stems)} images in {printable(image_folder)} have no depth map in "
            f"{printable(depth_folder)}, the first is {first}; add the maps or take the images out"
        )
    tables = (
        PathTable(image_folder, images.paths),
        PathTable(depth_folder, [by_stem[stem] for stem in stems]),
    )
    return DepthFiles(OWN, split, *tables, scale)


def _stems(listing: Listing) -> list[str]:
    return [os.fsdecode(path).rpartition(".")[0] for path in listing.paths]
