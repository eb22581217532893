"""HEIC and HEIF photos, read by pillow-heif (the extra `heic`).

How a photo is turned is a part of this format, so its pixels are always as viewers show them. Photos of more
than eight bits become eight.
"""

from __future__ import annotations

import io

from PIL import Image

from siamtransfer.data.file_kinds import PILLOW_HEIF
from siamtransfer.data.sizes import require_size
from siamtransfer.data.unreadable import UnreadableImage

_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
"""Of files whose pictures are compressed by HEVC."""
_ANY = {b"mif1", b"msf1"}  # brands of files that may hold either HEVC or AV1


def is_heif(data: bytes) -> bool:
    """Whether a file's content is that of a HEIC or HEIF photo, and not of AVIF."""
    if data[4:8] != b"ftyp":
        return False
    length = int.from_bytes(data[:4], "big")
    brands = {data[start : start + 4] for start in (8, *range(16, min(length, 256), 4))}
    return bool(brands & _BRANDS) or (data[8:12] in _ANY and not brands & {b"avif", b"avis"})


def open_heif(data: bytes, where: str, most: int | None) -> Image.Image:
    """The primary picture of a file, of mode RGB, RGBA or L, without EXIF orientation.

    Raises:
        UnreadableImage: pillow-heif is not installed, or the file is damaged or has more than `most` pixels.
    """
    if not PILLOW_HEIF.is_installed:
        raise UnreadableImage(where, PILLOW_HEIF.why("a HEIC photo"))
    import pillow_heif

    photo = pillow_heif.open_heif(io.BytesIO(data))
    width, height = photo.size
    require_size((height, width), where, most)
    picture: Image.Image = photo.to_pillow()
    return picture
