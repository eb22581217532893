"""Pascal VOC 2007 as a set for classification: which of the classes an image shows.

The ground truth is the development kit's (Everingham et al., IJCV 2010): ImageSets/Main/CLASS_SPLIT.txt has
for every image 1 (shows the class), -1 (does not) or 0 (shows it only in objects that are difficult to
recognise, which do not count in the score). If those lists are missing, the same is read from the objects in
Annotations/.

Legend: N images, C classes.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

import numpy as np

from siamtransfer.data.explain_errors import explain_errors
from siamtransfer.data.folders import FileImages
from siamtransfer.data.imageset import ImageSet, fingerprint_of_arrays
from siamtransfer.data.listing import PathTable, require_files
from siamtransfer.data.voc_files import NamedFiles, read_lines, read_names, refuse_unreadable_name
from siamtransfer.data.voc_xml import objects_of, read_annotation
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import first_few, printable

VOC_SPLITS = {"train": "trainval", "test": "test"}
VOC_FOLDERS = ("VOCdevkit/VOC2007", "VOC2007", ".")
SHOWN, DIFFICULT, ABSENT = 1, 0, -1
GroundTruth = dict[str, dict[str, int]]
"""Of an image and a class: SHOWN, DIFFICULT or ABSENT."""


class VocImages(FileImages):
    """A split of VOC2007, or of any folder in its layout, in the order of the images' names.

    `labels` is int64[N,C], 1 where an image shows a class, else 0; `ignored` is bool[N,C], true where it
    shows it only in difficult objects; the label is then 0. train is VOC's trainval. `root` is the folder of
    VOCdevkit, VOCdevkit itself or the folder VOC2007.

    Raises:
        UserError: the set is not there, is incomplete or could not be downloaded; a list is damaged.
    """

    def __init__(
        self, root: str | Path, split: str = "train", *, name: str = "voc07", download: bool = False
    ):
        voc_split = VOC_SPLITS[split]
        folder = _find(name, Path(root).expanduser().absolute(), voc_split, download)
        names = _read_names(folder, voc_split)
        truth, classes = _read_truth(folder, voc_split, names)
        if not names or not classes:
            raise UserError(f"{printable(folder)} lists no images for {name}/{split}; unpack it again")
        values = np.array([[truth[image].get(c, ABSENT) for c in classes] for image in names], dtype=np.int64)
        pictures = NamedFiles(folder / "JPEGImages", "jpg")
        files = PathTable(folder, [os.fsencode(f"JPEGImages/{pictures.relative(image)}") for image in names])
        require_files(name, files)
        super().__init__(name, split, files, labels=(values == SHOWN).astype(np.int64), classes=classes)
        self.ignored = values == DIFFICULT

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over relative paths, sizes, labels, what is ignored, and class names."""
        return fingerprint_of_arrays(self.ignored, text=super().fingerprint)


def ignored_of(images: ImageSet) -> np.ndarray | None:
    """bool[N,C], true for labels that do not count in the score; None for a set without such labels."""
    return getattr(images, "ignored", None)


def _find(name: str, root: Path, voc_split: str, download: bool) -> Path:
    """The folder VOC2007, with the list of the images of `voc_split`."""
    list_file = Path(f"ImageSets/Main/{voc_split}.txt")
    with explain_errors(name, root, VOC_FOLDERS[0], download=download):
        if download and not (root / VOC_FOLDERS[0] / list_file).is_file():
            from torchvision import datasets

            datasets.VOCDetection(str(root), year="2007", image_set=voc_split, download=True)
        folder = next(root / inner for inner in VOC_FOLDERS if (root / inner / "ImageSets/Main").is_dir())
    if not (folder / list_file).is_file():
        archive = f"VOC{voc_split}_06-Nov-2007.tar"
        raise UserError(
            f"{printable(folder / list_file)} is missing: unpack {archive}, an archive of its own, into "
            "the same folder, or fetch it with --data.download true"
        )
    return folder


def _read_truth(folder: Path, voc_split: str, names: list[str]) -> tuple[GroundTruth, list[str]]:
    """The ground truth of the images `names`, and the names of all classes, sorted."""
    end = f"_{voc_split}.txt"
    lists = {file.name.removesuffix(end): file for file in (folder / "ImageSets/Main").glob(f"*{end}")}
    if lists:
        return _from_lists(lists, names), sorted(lists)
    truth = train = _from_annotations(folder, names)
    if voc_split != "trainval":
        train = _from_annotations(folder, _read_names(folder, "trainval"))
    classes = _classes_of(train)
    if unexpected := sorted(set(_classes_of(truth)) - set(classes)):
        raise UserError(
            f"images of {voc_split} in {printable(folder)} show {first_few(unexpected)}, which none of "
            "trainval does; mend their annotations"
        )
    return truth, classes


def _classes_of(truth: GroundTruth) -> list[str]:
    return sorted({label for values in truth.values() for label in values})


def _from_lists(lists: dict[str, Path], names: list[str]) -> GroundTruth:
    """The ground truth of the images `names`, which are sorted, from the lists of the classes."""
    truth: GroundTruth = {image: {} for image in names}
    for label, file in lists.items():
        rows = [line.rsplit(maxsplit=1) for line in read_lines(file)]
        stated = {row[0]: row[1] for row in rows if len(row) == 2}
        if len(stated) < len(rows) or sorted(stated) != names or not set(stated.values()) <= {"1", "0", "-1"}:
            raise UserError(
                f"{printable(file)} is damaged: it must have 1, 0 or -1 for each image of its part, once; "
                "unpack it again"
            )
        for image, value in stated.items():
            truth[image][label] = int(value)
    return truth


def _from_annotations(folder: Path, names: list[str]) -> GroundTruth:
    """The same from the objects of each image; a class that an image does not show has no entry."""
    files, truth = NamedFiles(folder / "Annotations", "xml", {"xml"}), GroundTruth()
    for image in names:
        path = files[image]
        refuse_unreadable_name(image, path, folder / "ImageSets/Main")
        labels = truth.setdefault(image, {})
        for item in objects_of(read_annotation(path, "unpack it again", "unpack the set again")):
            shown = DIFFICULT if item.difficult else SHOWN
            labels[item.label] = max(labels.get(item.label, DIFFICULT), shown)
    return truth


def _read_names(folder: Path, voc_split: str) -> list[str]:
    """The names of the images of a part, sorted."""
    return sorted(read_names(folder / f"ImageSets/Main/{voc_split}.txt"))
