"""Every image of a set, read and decoded once by several processes."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from PIL import Image
from torch.utils.data import DataLoader, Dataset

from siamtransfer.data.containers.contained import ContainedImages
from siamtransfer.data.decode import FORMATS, decode
from siamtransfer.data.file_kinds import kind_of_ending
from siamtransfer.data.folders import FileImages
from siamtransfer.data.listing import ending_of
from siamtransfer.data.report.facts import ImageFacts, facts_of
from siamtransfer.data.sizes import is_too_large
from siamtransfer.data.transparency import is_opaque
from siamtransfer.data.unreadable import UnreadableImage, WrongChannels
from siamtransfer.utils.workers import worker_init

Files = FileImages | ContainedImages
Status = Literal["readable", "empty", "missing", "too large", "needs a package", "other channels", "broken"]

DIGEST = 16  # bytes; of 10^9 images two have the same by chance once in 10^20
BATCH = 32  # images that a process hands over at once


@dataclass(frozen=True)
class Examined:
    """What reading an image showed.

    Attributes:
        index: in its set.
        why: it cannot be read; empty where it can.
        facts: None where the header cannot be read.
        transparent: a pixel is, or may be where its alpha could not be decoded.
        bytes_digest: of the file; None where there are no bytes.
        pixels_digest: of size and pixels as the set reads them; None of an unreadable one.
    """

    index: int
    status: Status
    why: str = ""
    facts: ImageFacts | None = None
    transparent: bool = False
    bytes_digest: bytes | None = None
    pixels_digest: bytes | None = None


def examine(images: Files, workers: int) -> Iterator[Examined]:
    """Every image of a set in order; `workers` processes read, 0 for this one."""
    loader = DataLoader(
        _Examiner(images),
        batch_size=BATCH,
        num_workers=workers,
        collate_fn=list,
        worker_init_fn=worker_init(),
    )
    for batch in loader:
        yield from batch


class _Examiner(Dataset[Examined]):
    def __init__(self, images: Files):
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Examined:
        try:
            data = self.images.encoded(index)
        except UnreadableImage as failure:
            return Examined(index, "missing", failure.why)
        digest = hashlib.blake2b(data, digest_size=DIGEST).digest()
        if not data:
            return Examined(index, "empty", "the file is empty", bytes_digest=digest)
        where = self.images.describe(index)
        try:
            facts = facts_of(data, where)
        except Exception:  # decoding says what is wrong; readers raise errors of many types
            facts = None
        try:
            pixels = decode(data, where, self.images.form)
        except UnreadableImage as failure:
            status = _status(failure.why, self.images.relative_name(index))
            return Examined(index, status, failure.why, facts, bytes_digest=digest)
        except WrongChannels as failure:
            return Examined(index, "other channels", str(failure), facts, bytes_digest=digest)
        shape = "x".join(map(str, pixels.shape)).encode()
        pixels_digest = hashlib.blake2b(pixels.data, digest_size=DIGEST, key=shape).digest()
        transparent = facts is not None and facts.alpha and _has_transparent_pixels(data)
        return Examined(index, "readable", "", facts, transparent, digest, pixels_digest)


def _status(why: str, name: str) -> Status:
    if kind_of_ending(ending_of(name)).status == "needs package":
        return "needs a package"
    return "too large" if is_too_large(why) else "broken"


def _has_transparent_pixels(data: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return not is_opaque(image)
    except Exception:  # a form of alpha that Pillow does not open; readers raise errors of many types
        return True
