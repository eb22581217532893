"""Every image of a source, labelled or not: its parts in order, and the path of each image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from siamtransfer.data.class_tree import unlabelled_splits
from siamtransfer.data.imageset import ImageSet
from siamtransfer.data.listing import list_folders, list_images
from siamtransfer.data.parts import part_of
from siamtransfer.data.registry import NAMED
from siamtransfer.data.sources import Source, kind_of_files, open_dataset
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say
from siamtransfer.utils.text import printable


@dataclass(frozen=True)
class Part:
    """A split of a source.

    Attributes:
        images: the set.
        folder: the folder that paths of files begin in; None where there is none.
    """

    images: ImageSet
    folder: Path | None = None

    def path(self, index: int) -> str:
        """The path of image `index` below the folder of the source, or its name inside an archive, or what
        the set calls it. Bytes that are not UTF-8 are surrogates (os.fsencode gives them back)."""
        full = getattr(self.images, "path", None)
        if full is not None and self.folder is not None:
            return str(full(index)).removeprefix(f"{self.folder}/")
        name = getattr(self.images, "relative_name", None)
        return str(self.images.describe(index) if name is None else name(index))

    def class_of(self, index: int) -> str | None:
        """The name of the class of image `index`, several joined by |; None without labels."""
        if self.images.labels is None:
            return None
        label = self.images.labels[index]
        if np.ndim(label):
            return "|".join(self.images.classes[int(c)] for c in np.flatnonzero(label))
        return self.images.classes[int(label)]


def open_parts(
    source: Source, *, split: str | None = None, labelled: bool = False, **options: Any
) -> list[Part]:
    """The splits of a source that `open_dataset` takes, or the one that `split` names: train, then
    validation, then test.

    A folder of images beside folders is no tree of classes: all its images are taken, in the order of their
    paths and without labels, with a remark. So are those of a folder with images that are in no class and no
    part, such as a test part without class folders, unless they shall be `labelled`.

    Raises:
        UserError: the source cannot be opened.
    """
    if isinstance(source, str | Path) and str(source) not in NAMED and not Path(source).expanduser().exists():
        raise UserError(
            f"there is no folder or file {printable(source)}, and no set of this name; check the path"
        )
    folder = _folder_of(source, options)
    by_path = folder is not None and folder == Path(str(source)).expanduser().absolute()
    own = folder if split is None and by_path else None
    if own is not None and _holds_images_beside_folders(own):
        return [_all_below(own, "images beside its folders", options)]
    if own is not None and not labelled and options.get("parts") != "none" and _has_bare_train(own):
        return [_all_below(own, "a part train without class folders", options)]
    train, test = open_dataset(source, split=split, **options)
    validation = None
    if split is None and test is not None and part_of(test.split) == "test":
        validation = _validation_set(source, options)
    sets = [images for images in (train, validation, test) if images is not None]
    if own is not None and not labelled and train.name == "folder":
        lost = len(list_images(own).paths) - sum(map(len, sets))
        if lost > 0:
            return [_all_below(own, f"images that are in no class and no part ({lost})", options)]
    for remark in dict.fromkeys(text for images in sets for text in getattr(images, "set_remarks", ())):
        say(f"remark: {remark}")
    return [Part(images, folder) for images in sets]


def _all_below(folder: Path, why: str, options: dict[str, Any]) -> Part:
    """All images below a folder without labels, and a remark that says why."""
    say(f"remark: {printable(folder)} holds {why}, so the folders are taken for no classes")
    flat, _ = open_dataset("flat", folder, **{key: options[key] for key in options if key != "parts"})
    return Part(flat, folder)


def require_one_kind(parts: list[Part]) -> None:
    """Raises UserError where the splits of a source have other classes than its first."""
    first = parts[0].images
    for part in parts[1:]:
        if part.images.classes != first.classes or (part.images.labels is None) != (first.labels is None):
            raise UserError(
                f"{first.name}/{first.split} and {part.images.name}/{part.images.split} have other classes: "
                "name one of them with --split"
            )


def _validation_set(source: Source, options: dict[str, Any]) -> ImageSet | None:
    """The validation split that a source has beside train and test, which an evaluation leaves alone."""
    if not isinstance(source, str | Path) or (source in NAMED and NAMED[str(source)].splits is not None):
        return None
    try:
        return open_dataset(source, split="val", **options)[0]
    except UserError as error:
        if "has no split val" in str(error):
            return None
        raise


def _folder_of(source: Source, options: dict[str, Any]) -> Path | None:
    """The folder in which the paths of files are to begin; None for what is no folder or list of files."""
    if options.get("root") is not None:
        path = Path(options["root"])
    elif isinstance(source, str | Path):
        path = Path(source)
    else:
        return None
    path = path.expanduser().absolute()
    return path if path.is_dir() else path.parent if path.is_file() else None


def _has_bare_train(folder: Path) -> bool:
    return folder.is_dir() and kind_of_files(folder) == "folder" and "train" in unlabelled_splits(folder)


def _holds_images_beside_folders(folder: Path) -> bool:
    return folder.is_dir() and bool(list_folders(folder)) and bool(list_images(folder, nested=False).paths)
