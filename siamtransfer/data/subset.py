"""Some images of a labelled set, as a set of its own."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from siamtransfer.data.imageset import ImageSet, channels_of, content_fingerprint, fingerprint_of_arrays
from siamtransfer.data.pixel_form import PixelForm
from siamtransfer.utils.errors import UserError


class Subset:
    """The images of `images` named by `indices` int64[n], in that order, as an ImageSet.

    `form`, `remark`, `set_remarks` and `ignored` are those of `images`, where it has them (see
    `folders.FileImages` and `voc.VocImages`).
    """

    def __init__(self, images: ImageSet, indices: np.ndarray):
        self.images, self.indices = images, indices
        self.name, self.split, self.classes = images.name, images.split, images.classes
        self.image_size, self.channels = images.image_size, channels_of(images)
        self.labels = None if images.labels is None else images.labels[indices]
        self.form: PixelForm = getattr(images, "form", PixelForm(self.channels))
        self.remark: str | None = getattr(images, "remark", None)
        self.set_remarks: tuple[str, ...] = getattr(images, "set_remarks", ())
        ignored = getattr(images, "ignored", None)
        self.ignored: np.ndarray | None = None if ignored is None else ignored[indices]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the fingerprint of `images` and the indices."""
        return fingerprint_of_arrays(self.indices, text=self.images.fingerprint)

    @property
    def content_fingerprint(self) -> str:
        """SHA-256 over that of `images` and the indices."""
        return fingerprint_of_arrays(self.indices, text=content_fingerprint(self.images))

    def __len__(self) -> int:
        return len(self.indices)

    def image(self, index: int) -> np.ndarray:
        """Image `index` of the subset as uint8[H,W,C]; raises UnreadableImage."""
        return self.images.image(int(self.indices[index]))

    def describe(self, index: int) -> str:
        """As `images` describes it."""
        return self.images.describe(int(self.indices[index]))


def draw_by_class(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Indices int64[n], rising: `fraction` of every class of labels int64[N], one image at least."""
    generator = np.random.default_rng(seed)
    drawn = []
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        drawn.append(members[: max(1, round(fraction * len(members)))])
    return np.sort(np.concatenate(drawn))


def draw_shots(labels: np.ndarray, shots: int, seed: int) -> np.ndarray:
    """Indices int64[K * shots]: `shots` images of every class of labels int64[N].

    Raises:
        UserError: a class has fewer; says which.
    """
    generator = np.random.default_rng(seed)
    drawn = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) < shots:
            raise UserError(f"class {label} has {len(members)} images, and {shots} of each are to be drawn")
        drawn.append(generator.permutation(members)[:shots])
    return np.sort(np.concatenate(drawn))
