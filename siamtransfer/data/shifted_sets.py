"""Test sets for classifiers of ImageNet, of other pictures of its classes, in the layouts that their authors
publish: ImageNet-V2, -R, -A, -Sketch and -C. They have no train split.

Labels are positions among the set's own class names. Those are WordNet identifiers (n01440764), of which -R
and -A have 200; but ImageNet-V2 names its folders 0 to 999, the positions in the sorted names of all 1000
classes.
"""

from __future__ import annotations

import re
from pathlib import Path

from siamtransfer.data.folders import FileImages
from siamtransfer.data.listing import list_folders, require_folder
from siamtransfer.data.transfer_sets import file_images, list_classes
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import first_few, printable

IMAGENET_CLASSES = 1000
CLASSES = {"imagenet-v2": 1000, "imagenet-r": 200, "imagenet-a": 200, "imagenet-sketch": 1000}
"""How many classes a set has."""
NUMBERED = frozenset({"imagenet-v2"})
"""Sets whose class names are the numbers of ImageNet's classes."""
CORRUPTED = "imagenet-c"
PUBLISHED_CORRUPTIONS = (
    *("gaussian_noise", "shot_noise", "impulse_noise"),
    *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness"),
    *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)
"""The 15 corruptions of ImageNet-C that its score counts."""
EXTRA_CORRUPTIONS = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
"""Those that its authors keep for validation, in extra.tar."""
ARCHIVES = ("noise", "blur", "weather", "digital", "extra")
"""The archives of ImageNet-C, each of which may have been unpacked into a folder of its name."""
_WORDNET = re.compile(r"n\d{8}")


def open_shifted(name: str, root: str | Path) -> FileImages:
    """One of CLASSES, whose class folders lie in `root`.

    Raises:
        UserError: there are no such folders in `root`, they have other names, or a class is missing.
    """
    folder = require_folder(root)
    named = list_folders(folder)
    fits = str.isdigit if name in NUMBERED else _WORDNET.fullmatch
    right = [each for each in named if fits(each)]
    if len(right) != CLASSES[name]:
        kind = "0 to 999" if name in NUMBERED else "WordNet identifiers such as n01440764"
        others = f", and others ({printable(first_few(named))})" if len(right) < len(named) else ""
        raise UserError(
            f"{name} has {CLASSES[name]} class folders, named {kind}, and {printable(folder)} holds "
            f"{len(right)} of these{others}: name the folder that holds them, or unpack the set again"
        )
    listed = list_classes(folder)
    if set(listed.classes) != set(right):
        wrong = sorted(set(listed.classes) ^ set(right))
        raise UserError(
            f"{name} has images in its class folders alone and in all of them, which is not so in "
            f"{printable(folder)} ({printable(first_few(wrong))}): unpack the set again"
        )
    if name in NUMBERED:
        listed = listed._replace(
            labels=[int(listed.classes[label]) for label in listed.labels],
            classes=[str(number) for number in range(CLASSES[name])],
        )
    return file_images(name, "test", folder, listed)


def open_corrupted(root: str | Path, split: str) -> FileImages:
    """ImageNet-C at one corruption and severity; `split` is such as `fog/3`.

    Raises:
        UserError: there is no such corruption or severity in `root`, or it holds no class folders.
    """
    folder, (corruption, _, severity) = require_folder(root), split.partition("/")
    place = _folders_of_corruptions(folder).get(corruption)
    if place is None or not (place / severity).is_dir() or not severity:
        raise UserError(
            f"{CORRUPTED} in {printable(folder)} has no {split}: its folders are such as fog/3/n01440764 or "
            "weather/fog/3/n01440764"
        )
    files = list_classes(place / severity)
    if not files.paths:
        raise UserError(f"{printable(place / severity)} holds no images in class folders; unpack it again")
    return file_images(CORRUPTED, split, place / severity, files)


def corruptions_in(root: str | Path) -> list[str]:
    """The corruptions of ImageNet-C that are in `root`, in their published order, the extra ones last.

    Raises:
        UserError: there is no such folder, or none is there.
    """
    folder = require_folder(root)
    there = _folders_of_corruptions(folder)
    if not there:
        raise UserError(
            f"there is no corruption of {CORRUPTED} in {printable(folder)}: its folders are such as "
            "fog/3/n01440764 or weather/fog/3/n01440764"
        )
    return [name for name in (*PUBLISHED_CORRUPTIONS, *EXTRA_CORRUPTIONS) if name in there]


def _folders_of_corruptions(root: Path) -> dict[str, Path]:
    """The folder of each corruption below the root, or below the folder of its archive there."""
    known = (*PUBLISHED_CORRUPTIONS, *EXTRA_CORRUPTIONS)
    places = [root, *(root / archive for archive in ARCHIVES)]
    return {name: place / name for place in reversed(places) for name in known if (place / name).is_dir()}
