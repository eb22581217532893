"""The sets of images that can be opened by name; a set of your own is `folder`, `flat`, `list` or a container
of images: `shards`, `zip`, `parquet` or `huggingface`."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from siamtransfer.data import openers
from siamtransfer.data.files_form import settle_form
from siamtransfer.data.imageset import ArrayImages, ImageSet
from siamtransfer.data.openers import OpenRequest
from siamtransfer.data.pairs import PairImages
from siamtransfer.data.parts import PartsOption
from siamtransfer.data.pixel_form import FILE_OPTIONS, OPTIONS, RGB, SHOWN, PixelForm, pixel_form
from siamtransfer.utils.checks import at_least
from siamtransfer.utils.errors import UserError

PublishedMetric = Literal["top1", "mean_per_class", "mAP_11point"]
"""The metric by which the literature compares on a set: accuracy, mean accuracy over classes, or the mean
over classes of the 11-point average precision (SimCLR's and BYOL's appendices on transfer)."""


@dataclass(frozen=True)
class NamedSet:
    """One line of the table NAMED.

    Attributes:
        open: makes the set.
        description: a few words for error messages.
        splits: the names of its splits; None if the folders decide.
        takes: the arguments that it takes, of root, download, list_file, size, count, parts and the OPTIONS
            of a PixelForm.
        needs: those that it cannot do without, of root and list_file.
        metric: the metric by which the literature compares on it.
        form: of the pixels where no option says otherwise. The files of published sets are read as the
            code of their papers reads them, so their numbers stay comparable.
        find_parts: where the names of folders or files decide, the names of the splits below a root.
    """

    open: Callable[[OpenRequest], ImageSet]
    description: str
    splits: tuple[str, ...] | None
    takes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    metric: PublishedMetric = "top1"
    form: PixelForm = RGB
    find_parts: Callable[[Path], list[str]] | None = None


TRAIN_TEST = ("train", "test")
STL_SPLITS = ("train", "test", "unlabeled", "train+unlabeled")
IMAGENET_SPLITS = ("train", "val", "test")
PAIR_OPTIONS = ("columns", "column_channels")
_ROOT = (("root",), ("root",))  # all that a set takes, and what it needs


def _downloadable(
    open_set: Callable[[OpenRequest], ImageSet],
    description: str,
    metric: PublishedMetric = "top1",
    splits: tuple[str, ...] = TRAIN_TEST,
    takes: tuple[str, ...] = (),
) -> NamedSet:
    """A set below `root` that torchvision can download; files, or an array."""
    if open_set is not openers.torchvision:
        takes = (*takes, *FILE_OPTIONS)
    takes = ("root", "download", *takes)
    return NamedSet(open_set, description, splits, takes=takes, needs=("root",), metric=metric)


def _on_disk(
    open_set: Callable[[OpenRequest], ImageSet], description: str, splits: tuple[str, ...] | None = TRAIN_TEST
) -> NamedSet:
    """A set of files below `root` that cannot be downloaded."""
    return NamedSet(open_set, description, splits, takes=("root", *FILE_OPTIONS), needs=("root",))


def _own(
    open_set: Callable[[OpenRequest], ImageSet],
    description: str,
    find_parts: Callable[[Path], list[str]],
) -> NamedSet:
    """Images below `root` of which the names of files or folders decide the splits."""
    return NamedSet(
        open_set,
        description,
        None,
        takes=("root", *(() if open_set is openers.huggingface else ("parts",)), *OPTIONS),
        needs=("root",),
        form=SHOWN,
        find_parts=find_parts,
    )


NAMED: dict[str, NamedSet] = {
    "fashion-objects": NamedSet(
        openers.objects, "28-pixel clothes, embedded", TRAIN_TEST, takes=("channels",)
    ),
    "fashion-scenes": NamedSet(openers.scenes, "rendered scenes", TRAIN_TEST, takes=("size", "count")),
    "fashion-scenes-4": NamedSet(
        openers.hidden_scenes,
        "rendered scenes whose fourth channel shows the class",
        TRAIN_TEST,
        ("size", "count"),
    ),
    "fashion-pairs": NamedSet(
        openers.scene_cameras,
        "rendered scenes in colour and infrared",
        TRAIN_TEST,
        ("size", "count", *PAIR_OPTIONS),
    ),
    "fashion-frames": NamedSet(
        openers.scene_frames,
        "rendered scenes at two times",
        TRAIN_TEST,
        ("size", "count", "frames_gap", *PAIR_OPTIONS),
    ),
    "cifar10": _downloadable(openers.torchvision, "CIFAR-10"),
    "cifar100": _downloadable(openers.torchvision, "CIFAR-100"),
    "stl10": _downloadable(openers.torchvision, "STL-10", splits=STL_SPLITS),
    "mnist": _downloadable(openers.torchvision, "MNIST", takes=("channels",)),
    "fashion-mnist": _downloadable(openers.torchvision, "Fashion-MNIST", takes=("channels",)),
    "svhn": _downloadable(openers.torchvision, "SVHN's cropped digits, without its extra part"),
    "food101": _downloadable(openers.official, "Food-101"),
    "sun397": _downloadable(
        openers.drawn, "SUN397: the first official partition, else 50 + 50 a class drawn"
    ),
    "cars": _on_disk(openers.official, "Stanford Cars"),
    "aircraft": _downloadable(
        openers.official, "FGVC-Aircraft by variant; train is train and val", "mean_per_class"
    ),
    "voc07": _downloadable(
        openers.voc07, "PASCAL VOC 2007, several labels; train is trainval", "mAP_11point"
    ),
    "dtd": _downloadable(openers.official, "Describable Textures, split 1; train is train and val"),
    "pets": _downloadable(openers.official, "Oxford-IIIT Pets; train is trainval", "mean_per_class"),
    "caltech101": _downloadable(
        openers.drawn, "Caltech-101: train is 30 a class drawn, test the rest", "mean_per_class"
    ),
    "flowers102": _downloadable(
        openers.official, "Oxford 102 Flowers; train is train and val", "mean_per_class"
    ),
    "eurosat": _downloadable(openers.drawn, "EuroSAT: train is 80 % of each class drawn, test the rest"),
    "country211": _downloadable(openers.official, "Country211; train is train and valid"),
    "gtsrb": _downloadable(openers.official, "German traffic signs"),
    "rendered-sst2": _downloadable(openers.official, "Rendered SST2; train is train and val"),
    "places365": _downloadable(openers.official, "Places365-Standard of 256 pixels; test is val"),
    "inat18": _on_disk(openers.inaturalist, "iNaturalist 2018; test is val"),
    "inat21": _on_disk(openers.inaturalist, "iNaturalist 2021; test is val"),
    "inat21-mini": _on_disk(openers.inaturalist, "iNaturalist 2021, the small train part; test is val"),
    "pcam": NamedSet(openers.pcam, "PatchCamelyon; train is train and valid", TRAIN_TEST, *_ROOT),
    "resisc45": _on_disk(openers.vtab_files, "NWPU-RESISC45: train is 80 % of each class drawn"),
    "retinopathy": _on_disk(openers.vtab_files, "diabetic retinopathy in folders train, validation, test"),
    "clevr-count": _on_disk(openers.vtab_files, "CLEVR by the number of objects; test is val"),
    "clevr-distance": _on_disk(
        openers.vtab_files, "CLEVR by the distance of the closest object, in 6 bins; test is val"
    ),
    "dmlab": _on_disk(openers.vtab_files, "DeepMind Lab in folders train, validation, test"),
    "kitti-distance": _on_disk(
        openers.vtab_files, "KITTI by the distance of the closest vehicle: train is 90 % drawn"
    ),
    "dsprites-location": NamedSet(
        openers.dsprites, "dSprites by x position in 16 bins: train is 90 % drawn", TRAIN_TEST, *_ROOT
    ),
    "dsprites-orientation": NamedSet(
        openers.dsprites, "dSprites by orientation in 16 bins: train is 90 % drawn", TRAIN_TEST, *_ROOT
    ),
    "smallnorb-azimuth": NamedSet(
        openers.smallnorb, "small NORB by azimuth, 18 classes", TRAIN_TEST, ("root", "channels"), ("root",)
    ),
    "smallnorb-elevation": NamedSet(
        openers.smallnorb, "small NORB by elevation, 9 classes", TRAIN_TEST, ("root", "channels"), ("root",)
    ),
    "imagenet": NamedSet(
        openers.imagenet,
        "root/train and root/val",
        IMAGENET_SPLITS,
        ("root", "list_file", *FILE_OPTIONS),
        ("root",),
    ),
    "imagenet-v2": _on_disk(openers.shifted, "ImageNet-V2: folders 0 to 999, test alone", ("test",)),
    "imagenet-r": _on_disk(openers.shifted, "ImageNet-R, 200 classes, test alone", ("test",)),
    "imagenet-a": _on_disk(openers.shifted, "ImageNet-A, 200 classes, test alone", ("test",)),
    "imagenet-sketch": _on_disk(openers.shifted, "ImageNet-Sketch, test alone", ("test",)),
    "imagenet-c": _on_disk(openers.corrupted, "ImageNet-C, a split for each fog/3 and the like", None),
    "folder": _own(openers.folder, "a folder for each class", openers.parts_of_folder),
    "flat": NamedSet(
        openers.flat, "any images, no labels", ("train",), ("root", *OPTIONS), ("root",), form=SHOWN
    ),
    "list": NamedSet(
        openers.listed,
        "a text file of paths",
        None,
        ("root", "list_file", *OPTIONS),
        ("list_file",),
        form=SHOWN,
    ),
    "pairs": NamedSet(
        openers.pairs,
        "a table of paths in two columns, or frames of videos",
        None,
        ("root", "list_file", "frames_gap", *PAIR_OPTIONS, *OPTIONS),
        form=SHOWN,
    ),
    "shards": _own(openers.shards, "tar shards in WebDataset's layout", openers.parts_of_shards),
    "zip": _own(openers.zipped, "zip archives, a folder for each class or flat", openers.parts_of_zip),
    "parquet": _own(openers.parquet, "parquet files with a column of images", openers.parts_of_parquet),
    "huggingface": _own(
        openers.huggingface, "a folder of Hugging Face's save_to_disk", openers.parts_of_huggingface
    ),
}

CURES = {
    "root": "name the folder of the images with --data.root",
    "list_file": "name the text file with --data.list_file",
}


def open_images(
    name: str,
    *,
    root: str | Path | None = None,
    split: str = "train",
    download: bool = False,
    list_file: str | Path | None = None,
    size: int | None = None,
    count: int | None = None,
    seed: int = 0,
    bit_depth: int | None = None,
    channels: int | None = None,
    value_range: Sequence[float] | None = None,
    axes: str | None = None,
    orientation: str | None = None,
    background: str | None = None,
    max_pixels: int | None = None,
    parts: PartsOption | None = None,
    columns: Sequence[str | int] | None = None,
    column_channels: Sequence[int] | None = None,
    frames_gap: int | None = None,
) -> ImageSet:
    """Opens a set of images by its name in NAMED.

    `root` is the folder of a set on disk; `list_file` the text file of `list`, or of a part of `imagenet`.
    `size` (in pixels; None is the set's own), `count` and `seed` say how `fashion-scenes` is rendered; the
    seed means nothing to the other sets. The others are of sets of files (see `PixelForm`). Images of your
    own take all: the bits of integers with more than eight, and the values that become black and white, which
    are found where they are None; their number of channels, where None is 3, or what TIFF files of many
    channels have; the order of axes of arrays; whether EXIF orientation turns images (`shown`, or `stored`),
    and the background under transparent pixels (`white`, `black`, `R,G,B` or `drop`). Published sets take the
    last two: None is shown on white for your own, stored and drop for those; of grey ones `channels` 1, too.
    Every set of files takes `max_pixels`, the most that an image may have, where None is what Pillow allows.
    `parts` "none" takes all folders or files of your own as one split, where None looks for names of parts
    (see parts.py). Of sets of pairs `columns` chooses some columns, by name or number from 1, or one, which
    is then a set of its own; `column_channels` is `channels` for each of them; `frames_gap` is how many
    frames of a video the two images of a pair are apart.

    Raises:
        UserError: no such name or split, an argument that the set does not take or one that it needs, or
            anything that is wrong with the set itself.
    """
    if name not in NAMED:
        raise unknown_set(name)
    entry = NAMED[name]
    if entry.splits and split not in entry.splits:
        raise UserError(f"data.split: {name} has no split {split!r}; choose from {', '.join(entry.splits)}")
    arguments = {
        "root": root,
        "download": download or None,
        "list_file": list_file,
        "size": size,
        "count": count,
        "bit_depth": bit_depth,
        "channels": channels,
        "value_range": value_range,
        "axes": axes,
        "orientation": orientation,
        "background": background,
        "max_pixels": max_pixels,
        "parts": parts,
        "columns": columns,
        "column_channels": column_channels,
        "frames_gap": frames_gap,
    }
    form = pixel_form(
        channels, bit_depth, value_range, axes, orientation, background, max_pixels, usual=entry.form
    )
    _check_arguments(name, entry, arguments)
    at_least("data.frames_gap", frames_gap, 0)
    images = entry.open(
        OpenRequest(name, split, root, download, list_file, size, count, seed, parts or "auto", frames_gap)
    )
    if isinstance(images, PairImages):
        from siamtransfer.data.pair_columns import settle_columns

        return settle_columns(images, columns, form, channels, column_channels)
    _give_form(images, entry, form, channels)
    return images


def _check_arguments(name: str, entry: NamedSet, arguments: Mapping[str, object]) -> None:
    """Raises UserError for an argument that a set does not take, or for want of one that it needs."""
    for key, value in arguments.items():
        if value is not None and key not in entry.takes:
            raise UserError(f"data.{key}: {name} ({entry.description}) does not take it; leave it out")
        if value is None and key in entry.needs:
            raise UserError(f"data.{key}: {name} ({entry.description}) needs it; {CURES[key]}")


def _give_form(images: ImageSet, entry: NamedSet, form: PixelForm, channels: int | None) -> None:
    """Says to an opened set how its pixels are read; what its files decide is looked up in them."""
    if "orientation" in entry.takes:
        from siamtransfer.data.containers.contained import ContainedImages
        from siamtransfer.data.folders import FileImages

        assert isinstance(images, FileImages | ContainedImages)
        if "bit_depth" in entry.takes:
            settle_form(images, form, stated=channels is not None)
        else:
            images.form = form
    elif channels is not None and isinstance(images, ArrayImages):
        images.keep_channels(channels)


def unknown_set(name: str) -> UserError:
    """The error for a name that is not in NAMED; it names the nearest."""
    near = difflib.get_close_matches(name, NAMED, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    return UserError(f"data.name: there is no set {name!r}{hint} (there are {', '.join(NAMED)})")
