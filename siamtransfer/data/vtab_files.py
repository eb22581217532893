"""Tasks of the Visual Task Adaptation Benchmark whose images are files (Zhai et al., arXiv 1910.04867).

Labels are those of the benchmark: numbers of objects, or distances in bins. It draws its splits in the order
of TensorFlow Datasets, which the files do not have; here a set without published splits is split as those in
transfer_sets.py, by the SHA-256 of the paths, and its splits are called `train-drawn` and `test-drawn`. A
validation split belongs to train.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from siamtransfer.data.explain_errors import explain_errors
from siamtransfer.data.folders import FileImages
from siamtransfer.data.transfer_sets import FileList, file_images, list_classes, split_by_hash
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import printable

CLEVR_BINS = (0.0, 8.0, 8.5, 9.0, 9.5, 10.0)
"""Lower ends of the bins of the distance of the closest object, in units of CLEVR's camera."""
FEWEST_OBJECTS, MOST_OBJECTS = 3, 10  # of a CLEVR image
KITTI_BINS = (-100.0, 8.0, 20.0, 999.0)
"""Lower ends of the bins of the distance of the closest vehicle, in metres; the last means there is none."""
VEHICLES = ("Car", "Van", "Truck")
NO_VEHICLE = 1000.0
VALIDATION = ("validation", "valid", "val")


def bin_of(value: float, lower_ends: tuple[float, ...]) -> int:
    """The bin of a value: the last whose lower end is below it."""
    return int(np.searchsorted(lower_ends, value, side="left")) - 1


def open_vtab_files(name: str, root: str | Path, split: str) -> FileImages:
    """One split of one of TASKS.

    Raises:
        UserError: the set is not below `root`, is damaged or incomplete.
    """
    folder = Path(root).expanduser().absolute()
    inner, list_split, train_share = TASKS[name]
    with explain_errors(name, folder, inner, downloadable=False):
        if not (folder / inner).is_dir():
            raise FileNotFoundError
        files = list_split(folder / inner, name, split)
    if train_share is None:
        return file_images(name, split, folder, files)
    members = split_by_hash(name, split, folder, files, lambda n: (round(train_share * n), n))
    return file_images(name, f"{split}-drawn", folder, members)


def _clevr(folder: Path, name: str, split: str) -> FileList:
    """Train, or the validation images as test, since labels of the test images are not published."""
    part = "train" if split == "train" else "val"
    scenes = json.loads((folder / "scenes" / f"CLEVR_{part}_scenes.json").read_bytes())["scenes"]
    paths = [folder / "images" / part / scene["image_filename"] for scene in scenes]
    if name == "clevr-count":
        counts = [len(scene["objects"]) for scene in scenes]
        names = [str(count) for count in range(FEWEST_OBJECTS, MOST_OBJECTS + 1)]
        return FileList(paths, [count - FEWEST_OBJECTS for count in counts], names)
    nearest = [min(each["pixel_coords"][2] for each in scene["objects"]) for scene in scenes]
    ends = [f"{low:g} to {high:g}" for low, high in itertools.pairwise(CLEVR_BINS)]
    return FileList(paths, [bin_of(value, CLEVR_BINS) for value in nearest], [*ends, "above 10"])


def _kitti(folder: Path, name: str, split: str) -> FileList:
    """All images that have labels; they are split afterwards."""
    paths = sorted((folder / "image_2").iterdir())
    labels = [bin_of(_nearest_vehicle(folder / "label_2" / f"{p.stem}.txt"), KITTI_BINS) for p in paths]
    return FileList(paths, labels, ["up to 8 m", "8 to 20 m", "above 20 m", "no vehicle"])


def _nearest_vehicle(labels: Path) -> float:
    """The distance in metres along the camera's axis, the third number of a vehicle's location."""
    rows = [line.split() for line in labels.read_text().splitlines() if line.strip()]
    return min((float(row[13]) for row in rows if row[0] in VEHICLES), default=NO_VEHICLE)


def _class_folders(folder: Path, name: str, split: str) -> FileList:
    return list_classes(folder)


def _split_folders(folder: Path, name: str, split: str) -> FileList:
    """Folders train, validation (if there is one) and test, each with a folder for each class."""
    parts = ["test"] if split == "test" else ["train", *(v for v in VALIDATION if (folder / v).is_dir())]
    if not (folder / parts[0]).is_dir():
        raise UserError(
            f"{name} has its splits as folders train, validation and test of class folders, and there is no "
            f"{printable(folder / parts[0])}"
        )
    lists = [list_classes(folder / part) for part in parts]
    classes = sorted({each for files in lists for each in files.classes})
    if len(classes) != SPLIT_CLASSES[name]:
        raise UserError(
            f"{name} has {SPLIT_CLASSES[name]} classes, and {printable(folder)} has {len(classes)} class "
            f"folders in {', '.join(parts)}: unpack the whole set again"
        )
    return FileList(
        [path for files in lists for path in files.paths],
        [classes.index(files.classes[label]) for files in lists for label in files.labels],
        classes,
    )


SPLIT_CLASSES = {"retinopathy": 5, "dmlab": 6}
CLEVR, KITTI = "clevr/CLEVR_v1.0", "Kitti/raw/training"
TASKS: dict[str, tuple[str, Callable[[Path, str, str], FileList], float | None]] = {
    "clevr-count": (CLEVR, _clevr, None),
    "clevr-distance": (CLEVR, _clevr, None),
    "kitti-distance": (KITTI, _kitti, 0.9),
    "resisc45": ("NWPU-RESISC45", _class_folders, 0.8),
    "retinopathy": ("retinopathy", _split_folders, None),
    "dmlab": ("dmlab", _split_folders, None),
}
"""Name: the folder below the root, what lists a split, and the share of train where it is drawn."""
