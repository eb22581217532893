"""Whether the pixels of an opened file are the numbers that were stored in it.

Masks and depth maps are numbers. Some formats change them on saving, by lossy compression, and of some files
Pillow changes them on reading: it stretches grey values to 8 or 16 bits, and turns them round where 0 is
white. Either would be another class, or another depth, without a word.
"""

from __future__ import annotations

import re

from PIL import Image

from siamtransfer.utils.errors import UserError

_LOSSY = {
    "JPEG": "a JPEG",
    "MPO": "a JPEG",
    "WEBP": "a WebP",
    "AVIF": "an AVIF",
    "HEIF": "a HEIC",
    "JPEG2000": "a JPEG 2000",
    "JPEGXL": "a JPEG XL",
}
_COMPRESSION, _PHOTOMETRIC, _SAMPLE_FORMAT = 259, 262, 339  # tags of TIFF
_LOSSY_IN_TIFF = {
    6: "JPEG",
    7: "JPEG",
    33003: "JPEG 2000",
    33005: "JPEG 2000",
    34712: "JPEG 2000",
    34892: "JPEG",
    34934: "JPEG XR",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
_WHITE_IS_ZERO, _SIGNED = 0, 2
_GREY_PNM = (b"P2", b"P5")
_WHOLE = (255, 65535)
_COMMENT = re.compile(rb"#[^\r\n]*")
_LONGEST_HEADER = 2**16


def refuse_changed_values(image: Image.Image, data: bytes, what: str, where: str) -> None:
    """Raises UserError for a file of which the pixels in `image` are not surely what was stored; `data` are
    its bytes, `what` says what it should be, as "mask", and `where` names it."""
    reason = _change(image, data)
    if reason is not None:
        raise UserError(f"the {what} {where} {reason}; save {what}s as PNG")


def _change(image: Image.Image, data: bytes) -> str | None:
    if image.format in _LOSSY:
        return f"is {_LOSSY[image.format]}, whose compression changes values"
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        compression = tags.get(_COMPRESSION)
        if compression in _LOSSY_IN_TIFF:
            return f"is a TIFF compressed by {_LOSSY_IN_TIFF[compression]}, which changes values"
        if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
            return "is a TIFF in which 0 is white, so that readers turn its values round"
        if image.mode == "L" and _SIGNED in tags.get(_SAMPLE_FORMAT, ()):
            return "is a TIFF of signed numbers of 8 bits, of which -1 reads as 255"
    if data.startswith(_GREY_PNM):
        words = _COMMENT.sub(b"", data[:_LONGEST_HEADER]).split(None, 4)
        if len(words) > 3 and words[3].isdigit() and int(words[3]) not in _WHOLE:
            white = int(words[3])
            return f"is a PGM whose white is {white}, so that readers stretch its values to 8 or 16 bits"
    return None
