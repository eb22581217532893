"""Images and masks as files, in pairs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from siamtransfer.data.files_form import settle_form
from siamtransfer.data.folders import FileImages
from siamtransfer.data.listing import MISSING, Listing, PathTable
from siamtransfer.data.pixel_form import PixelForm
from siamtransfer.segmentation.data.class_values import ClassValues
from siamtransfer.segmentation.data.mask_orientation import MaskReading, as_image_is_read
from siamtransfer.segmentation.data.read_mask import read_mask
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import first_few, printable


class MaskFiles:
    """N image files and a mask file for each (MaskedImages).

    The fingerprint covers relative paths, file sizes, classes and the meaning of every value, so a copy of a
    set has the same; `content_fingerprint` covers what the files hold too (see FileImages).

    Attributes:
        values: the meaning of the values in the files.
        reading: how images are turned, and masks with them.
    """

    def __init__(self, name: str, split: str, images: PathTable, masks: PathTable, values: ClassValues):
        """`images` and `masks` have equal lengths and belong together by position.

        Raises:
            UserError: there is no pair, or a file is missing; names the first.
        """
        self.name, self.split, self.values = name, split, values
        self.classes, self.ignore = values.classes, values.ignore
        self.remarks: list[str] = []
        self.reading = MaskReading()
        self._images, self._masks = FileImages(name, split, images), FileImages(name, split, masks)
        self._image_paths, self._mask_paths = images, masks
        if not len(images):
            raise UserError(f"{name}/{split} below {printable(images.root)} has no images; check data.root")
        for kind, files in (("images", images), ("masks", masks)):
            _require_all(f"{name}/{split}", kind, files)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over relative paths and sizes of all files, classes and the meaning of every value."""
        parts = (self._images.fingerprint, self._masks.fingerprint, self.values.digest)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @cached_property
    def content_fingerprint(self) -> str:
        """The fingerprint and what the files hold: their bytes, or the times of their last changes."""
        parts = (self.fingerprint, self._images.content_fingerprint, self._masks.content_fingerprint)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._images)

    def image(self, index: int) -> np.ndarray:
        """Image `index` as uint8[H,W,C]; raises UnreadableImage, or WrongChannels."""
        return self._images.image(index)

    @property
    def channels(self) -> int:
        """C."""
        return self._images.channels

    @property
    def form(self) -> PixelForm:
        """How the pixels of the images are read."""
        return self._images.form

    def settle_form(self, form: PixelForm, *, stated: bool, orientation_stated: bool) -> None:
        """Gives the images their form, see `files_form.settle_form`; what a user should know is a remark."""
        settle_form(self._images, form, stated=stated)
        self.reading = MaskReading(form.orientation, orientation_stated)

    def take_form(self, form: PixelForm, *, orientation_stated: bool) -> None:
        """Gives the images of a published set their form."""
        self._images.form = form
        self.reading = MaskReading(form.orientation, orientation_stated)

    def mask(self, index: int) -> np.ndarray:
        """The mask of image `index`: class numbers and `ignore`; raises UserError, see MaskedImages."""
        return self.values.apply(self.raw_mask(index), f"the mask {printable(self.mask_path(index))}")

    def raw_mask(self, index: int) -> np.ndarray:
        """The values in the mask's file, turned as the image is read; raises UserError, see `read_mask` and
        `as_image_is_read`."""
        path, mask_path = self.path(index), self.mask_path(index)
        return as_image_is_read(read_mask(mask_path, self.form.max_pixels), self.reading, path, mask_path)

    def path(self, index: int) -> str:
        """The file of image `index`."""
        return self._image_paths[index]

    def mask_path(self, index: int) -> str:
        """The file of the mask of image `index`."""
        return self._mask_paths[index]

    def describe(self, index: int) -> str:
        """The path of image `index`."""
        return self._images.describe(index)

    def part(self, count: int) -> MaskFiles:
        """`count` pairs of these, spread evenly over their order; all of them where there are fewer."""
        if count >= len(self):
            return self
        images, masks = self._image_paths.spread(count), self._mask_paths.spread(count)
        part = MaskFiles(self.name, self.split, images, masks, self.values)
        part._images.form, part.reading = self._images.form, self.reading
        part.remarks = [*self.remarks, f"{count} of the {len(self)} images of {self.name}/{self.split}"]
        return part


def pair_by_name(
    images: Listing, masks: Listing, image_folder: Path, mask_folder: Path, *, expected: str = "{}.png"
) -> list[int]:
    """For every image the number of the mask with its relative path, whatever the ending.

    `expected` makes the name of a missing mask of the path without its ending.

    Raises:
        UserError: images have no mask, or two images or two masks have one name; names the first and what
            was expected.
    """
    numbers: dict[str, int] = {}
    for number, path in enumerate(map(os.fsdecode, masks.paths)):
        stem = path.rpartition(".")[0]
        if stem in numbers:
            other = os.fsdecode(masks.paths[numbers[stem]])
            raise UserError(
                f"{printable(mask_folder)} has two masks of one image, {printable(other)} and "
                f"{printable(path)}; take one of them out"
            )
        numbers[stem] = number
    stems = [os.fsdecode(path).rpartition(".")[0] for path in images.paths]
    first_of: dict[str, int] = {}
    for number, stem in enumerate(stems):
        earlier = first_of.setdefault(stem, number)
        if earlier != number:
            pair = (printable(os.fsdecode(images.paths[n])) for n in (earlier, number))
            raise UserError(
                f"{printable(image_folder)} has two images of one mask, {' and '.join(pair)}; "
                "take one of them out"
            )
    if missing := [number for number, stem in enumerate(stems) if stem not in numbers]:
        first, stem = os.fsdecode(images.paths[missing[0]]), stems[missing[0]]
        raise UserError(
            f"{len(missing)} of the {len(stems)} images in {printable(image_folder)} have no mask: the first "
            f"is {printable(first)}, for which {printable(mask_folder / expected.format(stem))} is missing; "
            "add the masks or take the images out"
        )
    return [numbers[stem] for stem in stems]


def _require_all(name: str, kind: str, files: PathTable) -> None:
    missing = np.flatnonzero(files.sizes() == MISSING)
    if len(missing):
        raise UserError(
            f"{len(missing)} of the {len(files)} {kind} of {name} are missing, the first is "
            f"{printable(files[int(missing[0])])}; unpack the whole set again"
        )


def count_remark(count: int, published: int, name: str) -> list[str]:
    """A remark where a set has another number of images than the published one."""
    if count == published:
        return []
    return [f"{name} has {count:,} images here; the published set has {published:,}"]


def unused_masks(masks: Listing, used: Sequence[int]) -> list[str]:
    """A remark on masks without an image; empty where every mask has one."""
    left = sorted(set(range(len(masks.paths))) - set(used))
    if not left:
        return []
    named = first_few([printable(os.fsdecode(masks.paths[number])) for number in left])
    return [f"{len(left)} of {len(masks.paths)} masks have no image and are not used: {named}"]
