"""One split of a detection set: records in Detectron2's form, and the checks that all formats share.

A record is one of Detectron2's standard dataset dicts (detectron2.readthedocs.io, "Use Custom Datasets"):
file_name, image_id, height, width, and `annotations`, each with bbox, bbox_mode, category_id, iscrowd, and
segmentation where there are masks; `keypoints` too where they are asked for. More keys, which Detectron2
ignores: `area`, the object's area in pixels as COCO's evaluation needs it, `num_keypoints`, the number of
labelled ones, and VOC's flag `difficult`.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageOps

from siamtransfer.data.decode import FORMATS
from siamtransfer.data.effort import require_bounded
from siamtransfer.data.orientation import UPRIGHT, orientation_of_png
from siamtransfer.data.unreadable import UnreadableImage
from siamtransfer.detection.data.image_names import elsewhere
from siamtransfer.detection.data.near_image import beyond, far
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.regular_files import LARGE, refuse_special
from siamtransfer.utils.text import printable

AnnotationFormat = Literal["voc", "coco", "cityscapes", "lvis"]
ImageRecord = dict[str, Any]
XYXY, XYWH = 0, 1  # the values of Detectron2's BoxMode
ORIENTATION, SIDEWAYS = 0x0112, (5, 6, 7, 8)  # EXIF's tag, and its values that swap height and width
_PNM_START, _PNM_HEAD = b"P", 2**21  # the bytes with which a header ends at the latest
_AT_ONCE = 64  # images
Found = TypeVar("Found")
READERS = 16  # threads; a network file system serves many requests at once


@dataclass(frozen=True)
class Skeleton:
    """The K keypoints of an object: names, pairs that a mirrored image swaps, numbers that a line joins."""

    names: tuple[str, ...]
    flips: tuple[tuple[str, str], ...]
    edges: tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False)
class DetectionSplit:
    """The records of one split, e.g. voc_2007_test.

    name: as the user wrote it; kind: the format of the annotations; classes: names by category_id;
    fingerprint: of the annotations and of the names and byte sizes of the images, whatever the folder;
    remarks: oddities that are no errors, one sentence each; skeleton: the keypoints, where they were read;
    stuff: the names of the classes without objects, by their number, of panoptic data; source: the file of
    annotations, and category_ids: the ids in it by number, where an evaluator reads that file itself.
    """

    name: str
    kind: AnnotationFormat
    records: list[ImageRecord]
    classes: tuple[str, ...]
    fingerprint: str
    remarks: tuple[str, ...] = ()
    skeleton: Skeleton | None = None
    stuff: tuple[str, ...] = ()
    source: Path | None = None
    category_ids: tuple[int, ...] = ()

    @property
    def annotations(self) -> list[dict[str, Any]]:
        """All objects, in the order of the images."""
        return [annotation for record in self.records for annotation in record["annotations"]]


def corners(annotation: dict[str, Any]) -> list[float]:
    """The box as x0, y0, x1, y1."""
    a, b, c, d = annotation["bbox"]
    return [a, b, c, d] if annotation["bbox_mode"] == XYXY else [a, b, a + c, b + d]


def read_image(record: ImageRecord) -> np.ndarray:
    """The image of a record as uint8[height, width, 3] RGB, rotated by its EXIF data as Detectron2 does.

    Raises:
        UserError: it cannot be read.
    """
    path = record["file_name"]
    try:
        data = Path(path).read_bytes()
        require_bounded(data, path)
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except UnreadableImage as error:
        raise _unreadable(path, error.why) from error
    except Exception as error:  # a damaged file makes Pillow's readers raise nearly anything
        raise _unreadable(path, error) from error


def check_boxes(
    boxes: np.ndarray, heights: np.ndarray, widths: np.ndarray, subject: Callable[[int], str]
) -> None:
    """Checks that boxes x0, y0, x1, y1 have finite corners in order, touch their images and do not reach far
    beyond (`near_image`).

    A box without area is accepted: COCO's own annotations hold a few, and training skips them.
    boxes: float64[n,4]; heights, widths: int64[n], of the image of each; subject: the object of a number in
    messages.

    Raises:
        UserError: names the first object that is wrong, the box and what is wrong.
    """
    lower, upper, size = boxes[:, :2], boxes[:, 2:], np.stack([widths, heights], axis=1)
    finite = np.isfinite(boxes).all(axis=1)
    ordered = np.all(upper >= lower, axis=1)
    inside = np.all((upper >= 0) & (lower <= size), axis=1)
    near = ~np.any(far(lower, size) | far(upper, size), axis=1)
    wrong = np.flatnonzero(~(finite & ordered & inside & near))
    if not wrong.size:
        return
    first = int(wrong[0])
    image = f"the image of {widths[first]} x {heights[first]} pixels"
    if not finite[first]:
        what = "are not all numbers"
    elif not ordered[first]:
        what = "have the second corner before the first"
    else:
        what = f"lie outside {image}" if not inside[first] else f"lie far from {image}"
    in_words = ", ".join(f"{value:g}" for value in boxes[first])
    raise UserError(f"the corners {in_words} of {subject(first)} {what}; mend the annotation or take it out")


def check_box(box: Sequence[float], height: int, width: int, where: str) -> None:
    """`check_boxes` of one box, of the object `where`.

    Raises:
        UserError: names the object, the box and what is wrong.
    """
    check_boxes(np.array([box], np.float64), np.array([height]), np.array([width]), lambda _: where)


def check_images(records: Sequence[ImageRecord], name: str) -> list[int]:
    """Reads the header of every image; returns the sizes of the files in bytes.

    Raises:
        UserError: there are no records, an image is absent, empty or no image, or it has not the height and
            width of its annotation (EXIF's orientation counted in, as Detectron2 counts it).
    """
    if not records:
        raise UserError(f"{name} has no images; choose a part that has some")
    paths = [record["file_name"] for record in records]
    with ThreadPoolExecutor(READERS) as pool:
        sizes = _mapped(pool, _bytes, paths)
        missing = [path for path, size in zip(paths, sizes, strict=True) if size is None]
        if missing:
            guess = elsewhere(missing[0])
            raise UserError(
                f"{len(missing)} of the {len(paths)} images of {name} are missing, {printable(missing[0])} "
                f"for one{f' ({guess})' if guess else ''}; complete the download or take them out of the "
                "annotations" + (", or mend the names there" if guess else "")
            )
        for record, header in zip(records, _mapped(pool, _header, paths), strict=True):
            if header.shown != (record["height"], record["width"]):
                raise _other_size(record, header, name)
    return [size for size in sizes if size is not None]


def count_oddities(records: Sequence[ImageRecord]) -> list[str]:
    """Oddities that stop no training, one sentence each: images without objects, boxes without area or beyond
    the edge."""
    without = sum(not record["annotations"] for record in records)
    pairs = [(record, item) for record in records for item in record["annotations"]]
    boxes = np.array([corners(item) for _, item in pairs], np.float64).reshape(-1, 4)
    size = np.array([(record["width"], record["height"]) for record, _ in pairs], np.float64).reshape(-1, 2)
    flat = int((boxes[:, 2:] <= boxes[:, :2]).any(axis=1).sum())
    lower, upper = np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])
    outside = int(beyond(lower, upper, size).sum())
    oddities = (
        (without, "images have no object"),
        (flat, "boxes have no area: training passes over them"),
        (outside, "boxes reach more than a pixel beyond their image: training cuts them off"),
    )
    return [f"{count} {what}" for count, what in oddities if count]


def _mapped(pool: ThreadPoolExecutor, look: Callable[[str], Found], paths: Sequence[str]) -> list[Found]:
    """What `look` finds of each path; a task of the pool is many paths, for one takes less than a task."""
    blocks = [paths[start : start + _AT_ONCE] for start in range(0, len(paths), _AT_ONCE)]
    found = pool.map(lambda block: [look(path) for path in block], blocks)
    return [item for block in found for item in block]


def _bytes(path: str) -> int | None:
    try:
        status = os.stat(path)  # noqa: PTH116 (a Path takes three times as long)
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or a device"
        raise UserError(f"the image {printable(path)} is {kind}; put the image there or mend its name")
    if status.st_size >= LARGE:
        refuse_special(path)
    return status.st_size


class _Header(NamedTuple):
    """The size of the stored pixels of an image, and whether EXIF turns them on their side."""

    height: int
    width: int
    sideways: bool

    @property
    def shown(self) -> tuple[int, int]:
        """Height and width of the image as it is read."""
        return (self.width, self.height) if self.sideways else (self.height, self.width)


def _header(path: str) -> _Header:
    try:
        with Path(path).open("rb") as file, _opened(file, path) as image:
            width, height = image.size
            # Of a PNG, whose own method would decode all pixels in search of EXIF data behind them.
            orientation = Image.Image.getexif(image).get(ORIENTATION, UPRIGHT)
            if orientation == UPRIGHT and image.format == "PNG":
                orientation = orientation_of_png(file)
            if orientation != UPRIGHT and image.format == "TIFF":
                raise UserError(
                    f"the image {printable(path)} is a TIFF with the orientation {orientation}, which "
                    "Detectron2 and Pillow both apply; save it upright, or as PNG or JPEG"
                )
    except UserError:
        raise
    except Exception as error:  # a damaged file makes Pillow's readers raise nearly anything
        raise _unreadable(path, error) from error
    return _Header(height, width, orientation in SIDEWAYS)


def _opened(file: IO[bytes], path: str) -> Image.Image:
    """The image of a file; of the kind PNM, whose header has comments of any length, within the bounds."""
    if file.read(1) == _PNM_START:
        file.seek(0)
        require_bounded(file.read(_PNM_HEAD), path)
    file.seek(0)
    return Image.open(file, formats=FORMATS)


def _other_size(record: ImageRecord, header: _Header, name: str) -> UserError:
    """The error for an image that has not the size of its annotation."""
    stated, (height, width) = (record["height"], record["width"]), header.shown
    image = f"{printable(record['file_name'])} is {width} x {height} pixels"
    if header.sideways:
        image += ", as its EXIF orientation turns it,"
    says = f"its annotation in {name} says {record['width']} x {record['height']}"
    cure = "mend the annotation or the image"
    if stated == (width, height):
        says += ", height and width in the other order"
        if header.sideways:
            says = says.replace("in the other order", "as they are stored")
            cure = "annotate the turned image, or take the orientation out of the file"
        else:
            cure = "write the true size there"
    return UserError(f"{image} and {says}; {cure}")


def _unreadable(path: str, error: Exception | str) -> UserError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(
        f"cannot read the image {printable(path)} ({reason}); restore it or take it out of the annotations"
    )
