"""Sets of images made from Python objects: a torch Dataset, a list of images or paths, an array.

Legend: N images, H and W pixels.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile

from siamtransfer.data.decode import decode
from siamtransfer.data.depth import remark_once
from siamtransfer.data.imageset import ArrayImages, ImageSet, fingerprint_of_arrays
from siamtransfer.data.pictures import to_channels, turned
from siamtransfer.data.pixel_form import RGB, Axes, Orientation, PixelForm, pixel_form
from siamtransfer.data.unreadable import UnreadableImage
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import printable

ALMOST_BLACK = 1 / 64  # of values from 0 to 1


class MapDataset(Protocol):
    """A map-style Dataset of torch or torchvision."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class _Content(NamedTuple):
    """What one pass over all images finds out."""

    fingerprint: str
    image_size: int | None


class ObjectImages:
    """N images that a function reads one by one, as an ImageSet.

    `read` maps an index to uint8[H,W,C], C being `channels`; `form` is that of files, for records.
    `fingerprint` and `image_size` need the pixels of all images: the first use of either reads the whole set
    once.
    """

    def __init__(
        self,
        name: str,
        split: str,
        read: Callable[[int], np.ndarray],
        length: int,
        *,
        labels: np.ndarray | None = None,
        classes: Sequence[str] = (),
        paths: Sequence[str] | None = None,
        channels: int = 3,
        form: PixelForm | None = None,
    ):
        if not length:
            raise UserError(f"{name}/{split} holds no images; there must be at least one")
        self.name, self.split, self.labels, self.classes = name, split, labels, tuple(classes)
        self.channels, self.form = channels, form or PixelForm(channels)
        self._read, self._length, self._paths = read, length, paths

    @cached_property
    def _content(self) -> _Content:
        digest = fingerprint_of_arrays(self.labels, text="\n".join(self.classes))
        sizes: set[tuple[int, ...]] = set()
        combined = hashlib.sha256(digest.encode())
        for index in range(self._length):
            try:
                pixels = self.image(index)
            except UnreadableImage:
                combined.update(b"unreadable")
                sizes.add(())
                continue
            combined.update(fingerprint_of_arrays(pixels).encode())
            sizes.add(pixels.shape[:2])
        size = sizes.pop() if len(sizes) == 1 else ()
        return _Content(combined.hexdigest(), size[0] if size and size[0] == size[1] else None)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the pixels of all images, labels and class names; reads every image once."""
        return self._content.fingerprint

    @property
    def image_size(self) -> int | None:
        """The side in pixels if all images are squares of one size, else None; reads every image once."""
        return self._content.image_size

    def __len__(self) -> int:
        return self._length

    def image(self, index: int) -> np.ndarray:
        """Image `index` as uint8[H,W,C]; raises UnreadableImage for a damaged file."""
        return self._read(index)

    def describe(self, index: int) -> str:
        """The path of image `index`, or for example `images/train[17]`."""
        return self._paths[index] if self._paths is not None else f"{self.name}/{self.split}[{index}]"


def from_torch(
    dataset: MapDataset,
    *,
    name: str = "dataset",
    split: str = "train",
    classes: Sequence[str] | None = None,
    channels: int | None = None,
    background: str | None = None,
) -> ImageSet:
    """A map-style Dataset of torch or torchvision as an ImageSet.

    An item is (image, label), or an image alone, for a set without labels. An image is a PIL image, an array
    uint8[H,W,3] or uint8[H,W], or a tensor [3,H,W] or [1,H,W] of uint8 or of floating-point values from 0 to
    1. With another number of `channels` C than three it is uint8[H,W,C], or a tensor [C,H,W], and nothing is
    converted. A label is an integer. Transparent pixels of PIL images show `background`, by default white. A
    PIL image that comes straight from `Image.open` is turned by its EXIF orientation, one that was worked on
    is not.

    The Dataset must give the same image for an index at every call: it must have no random transform. Its
    labels are taken from its attribute `targets` if it has one, else every item is read once. Without
    `classes`, its attribute `classes` names them, else their numbers do. The fingerprint covers the content:
    its first use reads every image once.

    Raises:
        UserError: the Dataset is empty, an item is none of the above, or its values look normalised.
    """
    form, length = pixel_form(channels, background=background), len(dataset)
    if not length:
        raise UserError(f"{name}/{split} holds no images; there must be at least one")
    has_label = _is_pair(dataset[0])

    def read(index: int) -> np.ndarray:
        item = dataset[index]
        return to_pixels(item[0] if has_label else item, f"image {index} of {name}/{split}", form)

    labels = _labels_of(dataset, f"{name}/{split}") if has_label else None
    if classes is None:
        classes = getattr(dataset, "classes", None)
    if labels is not None:
        classes = _class_names(labels, classes, f"{name}/{split}")
    classes = classes or () if has_label else ()
    return ObjectImages(name, split, read, length, labels=labels, classes=classes, channels=form.channels)


def from_images(
    images: Sequence[Image.Image | str | os.PathLike[str]],
    labels: Sequence[int] | Sequence[str] | np.ndarray | None = None,
    *,
    name: str = "images",
    split: str = "train",
    bit_depth: int | None = None,
    channels: int | None = None,
    value_range: Sequence[float] | None = None,
    axes: Axes | None = None,
    orientation: Orientation | None = None,
    background: str | None = None,
    max_pixels: int | None = None,
) -> ImageSet:
    """A list of PIL images or paths as an ImageSet; files are read when their images are used.

    `labels` are integers, or names, which are numbered in sorted order. The fingerprint covers the content:
    its first use reads every image once. The others say how files become uint8[H,W,C], see `PixelForm`;
    `channels` None is 3, `orientation` None shown, `background` None white, and
    `max_pixels` None what Pillow allows. A PIL image that comes straight from `Image.open` is read as its
    file; one that was worked on is not turned.

    Raises:
        UserError: the list is empty, an entry is neither an image nor a path, or the labels do not fit.
    """
    form = pixel_form(channels, bit_depth, value_range, axes, orientation, background, max_pixels)
    for index, image in enumerate(images):
        if not isinstance(image, Image.Image | str | os.PathLike):
            raise UserError(
                f"entry {index} of the list is a {type(image).__name__}; it must be a PIL image or a path"
            )
    paths = [
        f"{name}/{split}[{index}]" if isinstance(image, Image.Image) else printable(Path(image))
        for index, image in enumerate(images)
    ]

    def read(index: int) -> np.ndarray:
        image = images[index]
        if isinstance(image, Image.Image):
            return _picture(image, paths[index], form)
        return decode(image, form=form)

    numbers, classes = _number_labels(labels, len(images), f"{name}/{split}")
    return ObjectImages(
        name,
        split,
        read,
        len(images),
        labels=numbers,
        classes=classes,
        paths=paths,
        channels=form.channels,
        form=form,
    )


def from_array(
    pixels: np.ndarray,
    labels: Sequence[int] | Sequence[str] | np.ndarray | None = None,
    *,
    name: str = "array",
    split: str = "train",
    channels: int | None = None,
) -> ImageSet:
    """An array uint8[N,H,W,3], or uint8[N,H,W] of grey images, as an ImageSet; with `channels` C an array
    uint8[N,H,W,C], and with 1 the grey images keep their one channel.

    `labels` are integers, or names, which are numbered in sorted order.

    Raises:
        UserError: another shape or type, no image, or labels that do not fit.
    """
    pixels, wanted = np.asarray(pixels), pixel_form(channels).channels
    grey = pixels.ndim == 3 and wanted in (1, 3)
    if pixels.dtype != np.uint8 or not (grey or (pixels.ndim == 4 and pixels.shape[3] == wanted)):
        form = f"uint8[N,H,W,{wanted}]" + (", or uint8[N,H,W]" if wanted in (1, 3) else "")
        other = "" if channels else "; `channels` states another number of channels than three"
        raise UserError(f"the array is {pixels.dtype}{list(pixels.shape)}; it must be {form}{other}")
    if not pixels.size:
        raise UserError(
            f"the array of shape {list(pixels.shape)} holds no images; there must be at least one"
        )
    numbers, classes = _number_labels(labels, len(pixels), f"{name}/{split}")
    return ArrayImages(name, split, pixels, numbers, classes, wanted)


def to_pixels(image: Any, where: str, form: PixelForm = RGB) -> np.ndarray:
    """uint8[H,W,C] of a PIL image, an array uint8[H,W,C] or uint8[H,W], or a tensor [C,H,W] or [1,H,W] of
    uint8 or of floating-point values from 0 to 1. C is that of `form`; one channel becomes three where it is
    3. `where` names the image in errors.

    Raises:
        UserError: it is none of these, or its values look normalised.
    """
    if isinstance(image, Image.Image):
        return _picture(image, where, form)
    allowed = (1, 3) if form.channels == 3 else (form.channels,)
    if hasattr(image, "detach"):  # a tensor; torch itself is not imported for this
        pixels = image.detach().cpu().numpy()
        if pixels.ndim != 3 or pixels.shape[0] not in allowed:
            shapes = " or ".join(f"[{channels},H,W]" for channels in reversed(allowed))
            raise UserError(f"{where} is a tensor of shape {list(pixels.shape)}; it must be {shapes}")
        pixels = pixels.transpose(1, 2, 0)
        if np.issubdtype(pixels.dtype, np.floating):
            pixels = _from_unit(pixels, where)
    elif isinstance(image, np.ndarray):
        pixels = image
    else:
        raise UserError(
            f"{where} is of type {type(image).__name__}; it must be a PIL image, a uint8 array or a tensor"
        )
    grey = pixels.ndim == 2 and 1 in allowed
    if pixels.dtype != np.uint8 or not (grey or (pixels.ndim == 3 and pixels.shape[2] in allowed)):
        shapes = f"uint8[H,W,{form.channels}]" + (" or uint8[H,W]" if 1 in allowed else "")
        raise UserError(f"{where} is {pixels.dtype}{list(pixels.shape)}; an array must be {shapes}")
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    if pixels.shape[2] < form.channels:
        return np.repeat(pixels, form.channels, axis=2)
    return np.array(pixels, order="C")


def _picture(image: Image.Image, where: str, form: PixelForm) -> np.ndarray:
    """uint8[H,W,C] of a PIL image; what `Image.open` returned is turned as the form says."""
    if isinstance(image, ImageFile):
        return turned(image, form, lambda: to_channels(image, where, form))
    return to_channels(image, where, form)


def _from_unit(pixels: np.ndarray, where: str) -> np.ndarray:
    """uint8 of floating-point values from 0 to 1."""
    low, high = float(pixels.min()), float(pixels.max())
    if not 0 <= low <= high <= 1:
        raise UserError(
            f"{where} has values from {low:.3g} to {high:.3g}, so it looks normalised; give the set "
            "without Normalize, with values from 0 to 1"
        )
    if 0 < high <= ALMOST_BLACK:
        remark_once(
            "range",
            f"{where} has values up to {high:.3g}, nearly black: were they divided by 255 twice?",
        )
    return np.rint(pixels.astype(np.float64) * 255).astype(np.uint8)


def _is_pair(item: Any) -> bool:
    return isinstance(item, tuple | list) and len(item) == 2


def _labels_of(dataset: MapDataset, where: str) -> np.ndarray:
    """int64[N] from the attribute `targets`, else from every item."""
    targets = getattr(dataset, "targets", None)
    if targets is None:
        return _integers((dataset[index][1] for index in range(len(dataset))), where)
    labels = _integers(iter(targets), where)
    if len(labels) != len(dataset):
        raise UserError(f"{where} has {len(dataset)} images and {len(labels)} targets; give each image one")
    return labels


def _integers(labels: Iterator[Any], where: str) -> np.ndarray:
    values = []
    for index, label in enumerate(labels):
        value = label.item() if hasattr(label, "item") and np.ndim(label) == 0 else label
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            kind = type(value).__name__
            raise UserError(f"label {index} of {where} is {value!r}, a {kind}; it must be an integer from 0")
        values.append(value)
    return np.array(values, dtype=np.int64)


def _number_labels(
    labels: Sequence[int] | Sequence[str] | np.ndarray | None, count: int, where: str
) -> tuple[np.ndarray | None, Sequence[str]]:
    """int64[N] and the names of the classes; (None, ()) without labels."""
    if labels is None:
        return None, ()
    if len(labels) != count:
        raise UserError(f"{where} has {count} images and {len(labels)} labels; give each image one")
    if all(isinstance(label, str) for label in labels):
        classes = sorted({str(label) for label in labels})
        numbers = {name: number for number, name in enumerate(classes)}
        return np.array([numbers[str(label)] for label in labels], dtype=np.int64), classes
    integers = _integers(iter(labels), where)
    return integers, _class_names(integers, None, where)


def _class_names(labels: np.ndarray, classes: Sequence[str] | None, where: str) -> Sequence[str]:
    """`classes`, or the numbers of the classes."""
    count = int(labels.max()) + 1
    if classes is None:
        return [str(number) for number in range(count)]
    if count > len(classes):
        raise UserError(f"{where} has the label {count - 1} and only {len(classes)} class names")
    return [str(name) for name in classes]
