"""What is kept of a segmentation of many images: of every image the pixels by class, for each setting.

Whole predictions would take gigabytes; these areas are all that mIoU, its interval over images and the
paired difference of two backbones depend on.

Legend: N images, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from siamtransfer.metrics.segmentation import PerImageCounts
from siamtransfer.utils.files import atomic_write

END = "/areas/"
"""Every array is named `SETTING/areas/NAME`, with the names of `PerImageCounts.arrays`."""


@dataclass(eq=False)
class ImageAreas:
    """The areas of all images for every setting.

    Attributes:
        settings: by name, such as `linear`; all of the same N images, classes and masks.

    Raises:
        ValueError: there is no setting or no image, or the settings were scored against other masks; the
            message is the rest of a sentence that begins with the file's name.
    """

    settings: dict[str, PerImageCounts]

    def __post_init__(self) -> None:
        if not self.settings or not len(next(iter(self.settings.values()))):
            raise ValueError("holds no areas of images")
        first, *others = self.settings
        for other in others:
            if (difference := truth_difference(self.settings[first], self.settings[other])) is not None:
                raise ValueError(f"holds {first} and {other} of other masks: {difference}")

    def __len__(self) -> int:
        """N."""
        return len(next(iter(self.settings.values())))

    def write(self, path: str | Path) -> None:
        """Writes an .npz atomically; equal areas make equal bytes."""
        with atomic_write(path) as file:
            self.save(file)

    def save(self, file: IO[bytes]) -> None:
        """Writes the same arrays into an open file."""
        arrays = {
            f"{setting}{END}{name}": array
            for setting, counts in self.settings.items()
            for name, array in counts.arrays().items()
        }
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> ImageAreas:
        """The areas in the arrays of a file that `write` wrote; raises ValueError, see the class."""
        settings: dict[str, dict[str, np.ndarray]] = {}
        for key, array in arrays.items():
            setting, _, name = key.rpartition(END)
            settings.setdefault(setting, {})[name] = array
        return cls({setting: PerImageCounts.from_arrays(of_one) for setting, of_one in settings.items()})


def is_of_areas(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether arrays come from a file of areas."""
    return any(END in key for key in arrays)


def truth_difference(first: PerImageCounts, second: PerImageCounts) -> str | None:
    """How the masks of two differ, in words; None where all images have the same pixels of every class."""
    sizes = [(len(counts), counts.classes) for counts in (first, second)]
    if sizes[0] != sizes[1]:
        return " and ".join(f"{images} images of {classes} classes" for images, classes in sizes)
    truths = [areas_of_truth(counts) for counts in (first, second)]
    if all(np.array_equal(*pair) for pair in zip(*truths, strict=True)):
        return None
    images = [set(zip(*(column.tolist() for column in truth), strict=True)) for truth in truths]
    image = min(images[0] ^ images[1])[0]
    return f"image {image} has other pixels of its classes"


def areas_of_truth(counts: PerImageCounts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The image, the class and the pixels of the truth wherever it has any, int64[n] each."""
    images = np.repeat(np.arange(len(counts)), np.diff(counts.ends))
    there = counts.entries["truth"] > 0
    entries = counts.entries[there]
    return images[there], entries["class"].astype(np.int64), entries["truth"]
