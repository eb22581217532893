"""The embedded images of Fashion-MNIST: small grey garments, shoes and bags on black, with silhouettes.

The file fashion_objects.npz is made by scripts/build_fashion_objects.py, which states the selection rule.
Fashion-MNIST: Xiao, Rasul and Vollgraf, arXiv 1708.07747; MIT licence.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from scipy import ndimage

from siamtransfer.data.imageset import ArrayImages
from siamtransfer.utils.errors import UserError

OBJECTS_FILE = Path(__file__).with_name("fashion_objects.npz")
OBJECTS_SHA256 = "d9aae9dbd20afeaa5170d857dab871a7414fc6179f00502610fe4e15d1fb42ee"
OBJECT_SPLITS = ("train", "test")
OBJECT_SIZE = 28
CLASSES = (
    "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip

FAINT = 12  # grey values up to here are resampling noise around the object, not cloth
SPECK = 10  # a connected piece with fewer pixels than this is noise too


@dataclass(frozen=True, eq=False)
class EmbeddedObjects:
    """N objects of one split, class after class, each class equally often.

    images: uint8[N,28,28], grey, background 0; labels: int64[N]; classes: the ten names. All read-only.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...] = CLASSES

    def __len__(self) -> int:
        return len(self.images)


@cache
def read_objects(split: str) -> EmbeddedObjects:
    """Reads the objects of `split`, "train" (7,000) or "test" (1,500), once in a process.

    Raises:
        UserError: there is no such split, or the embedded file is missing or damaged.
    """
    if split not in OBJECT_SPLITS:
        raise UserError(
            f"the embedded objects have the splits train and test, not {split!r}; choose one of them"
        )
    try:
        content = OBJECTS_FILE.read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read {OBJECTS_FILE}: {error.strerror}; install SiamTransfer again"
        ) from error
    if hashlib.sha256(content).hexdigest() != OBJECTS_SHA256:
        raise UserError(f"{OBJECTS_FILE} is damaged (its SHA-256 differs); install SiamTransfer again")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        images = arrays[f"{split}_images"]
        labels = arrays[f"{split}_labels"].astype(np.int64)
    images.flags.writeable = labels.flags.writeable = False
    return EmbeddedObjects(images, labels)


def silhouette(image: np.ndarray) -> np.ndarray:
    """The mask bool[H,W] of the object in a grey image uint8[H,W] whose background is (nearly) 0.

    Every pixel brighter than FAINT, without pieces smaller than SPECK pixels (unless there is no larger one),
    with inner holes filled: a white print on a shirt and the gap under a bag's handle belong to the object.
    """
    bright = image > FAINT
    pieces, count = ndimage.label(bright, structure=np.ones((3, 3)))
    if count > 1:
        areas = np.bincount(pieces.ravel())
        areas[0] = 0
        bright = (areas >= min(SPECK, areas.max()))[pieces]
    return ndimage.binary_fill_holes(bright)


@cache
def object_silhouettes(split: str) -> np.ndarray:
    """The silhouettes bool[N,28,28] of all objects of `split`, read-only."""
    masks = np.stack([silhouette(image) for image in read_objects(split).images])
    masks.flags.writeable = False
    return masks


def tight_box(mask: np.ndarray) -> np.ndarray:
    """int64[4]: x0 y0 x1 y1 of the smallest box around a non-empty mask bool[H,W]; x1 and y1 excluded."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


class FashionObjects(ArrayImages):
    """The embedded objects as an image set of 28-pixel squares, the grey value in all three channels."""

    def __init__(self, split: str = "train"):
        objects = read_objects(split)
        super().__init__("fashion-objects", split, objects.images, objects.labels, objects.classes)
