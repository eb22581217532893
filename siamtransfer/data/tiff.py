"""TIFF files: their header, by Pillow; the pixels of those that Pillow does not read, by tifffile.

tifffile logs what is damaged and fills up what is missing. Here such a file is refused.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import struct
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from typing import IO, Any, NamedTuple

import numpy as np
from PIL import TiffImagePlugin

from siamtransfer.data.sizes import reason_of, require_size
from siamtransfer.data.unreadable import UnreadableImage
from siamtransfer.utils.errors import UserError

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _ORIENTATION, _SAMPLES = 256, 257, 258, 262, 274, 277  # tags of TIFF
_LARGEST, _EXTRA_SAMPLES = 281, 338  # MaxSampleValue, ExtraSamples
# Of the tag ExtraSamples: alpha, by which the colours are multiplied or not.
_ASSOCIATED, _UNASSOCIATED = 1, 2
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
_PARTS = {273, 279, 324, 325}  # offsets and lengths of strips and of tiles
MOST_PARTS = 2**18
"""Strips or tiles of a TIFF: with tiles of 64 x 64 pixels those of 10^9 pixels."""
MOST_TAGS, MOST_PAGES = 4_096, 2**16
MOST_TAGS_OF_ALL = 2**20
"""Tags of all pages together, which may lie over each other; 20,000 pages have 300,000."""
_SHORT = 3  # the type of two bytes, which stand first in the four or eight of a value
_LARGE_TILE = 2**24  # pixels of a tile, which may be larger than its image
_INKS = 5  # of the tag Photometric
_UNCOMPRESSED = 1  # of the tag Compression
MOST_CHANNELS_OF_PILLOW = 4
_EXTRA = "pip install 'siamtransfer[multichannel]'"


class TiffHeader(NamedTuple):
    """What the header of a TIFF file says of its first page, and whether more pages follow.

    Attributes:
        size: width and height in pixels, as they are stored.
        orientation: as EXIF's; 1 where the file states none, or a value that there is not.
        alpha: the last channel is alpha.
        premultiplied: the colours are multiplied by it.
        largest: the value that no pixel exceeds, where the file states it, else None.
    """

    samples: int
    bits: int
    inks: bool
    more_pages: bool
    size: tuple[int, int] = (0, 0)
    orientation: int = 1
    alpha: bool = False
    premultiplied: bool = False
    largest: int | None = None


def tiff_header(stream: IO[bytes]) -> TiffHeader | None:
    """The header of a TIFF file; None where it cannot be read."""
    try:
        start = stream.read(16)
        if not start.startswith(TIFF_STARTS):
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            directory = TiffImagePlugin.ImageFileDirectory_v2(start[: 16 if b"+" in start[2:4] else 8])
            stream.seek(directory.next)
            directory.load(stream)
            bits = max(map(int, directory.get(_BITS, (1,))))
            samples = int(directory.get(_SAMPLES, 1))
            size = int(directory[_WIDTH]), int(directory[_HEIGHT])
            inks, orientation = directory.get(_PHOTOMETRIC) == _INKS, directory.get(_ORIENTATION, 1)
            orientation = orientation if orientation in range(1, 9) else 1
            extra = directory.get(_EXTRA_SAMPLES, ())
            alpha = {_ASSOCIATED, _UNASSOCIATED}.intersection(extra)
            stated = directory.get(_LARGEST)
            largest = max(map(int, stated)) if isinstance(stated, tuple) else stated
            return TiffHeader(
                samples,
                bits,
                inks,
                bool(directory.next),
                size,
                orientation,
                alpha=bool(alpha),
                premultiplied=_ASSOCIATED in alpha,
                largest=largest,
            )
    except Exception:  # Pillow raises errors of many types for damaged files
        return None


def effort_of_tiff(data: bytes, most_pixels: int | None) -> str | None:
    """Why a file takes more work or memory than any ordinary one, or None: it has more tags, pages or strips,
    or tiles larger than `most_pixels`. Damage is left to the readers."""
    order, big = ("<" if data[:1] == b"I" else ">"), b"+" in data[2:4]
    word, entry_form = ("Q", "HHQQ") if big else ("I", "HHII")
    count_form, entry = struct.Struct(order + ("Q" if big else "H")), struct.Struct(order + entry_form)
    link = struct.Struct(order + word)
    pages, of_all, tile, seen = 0, 0, {}, set[int]()
    at = int(link.unpack_from(data, 8 if big else 4)[0]) if len(data) >= 16 else 0
    while at and at not in seen and at + count_form.size <= len(data):
        seen.add(at)
        tags, pages = int(count_form.unpack_from(data, at)[0]), pages + 1
        of_all += tags
        for count, most, what in (
            (tags, MOST_TAGS, "tags"),
            (pages, MOST_PAGES, "pages"),
            (of_all, MOST_TAGS_OF_ALL, "tags on all pages"),
        ):
            if count > most:
                return f"it has more than {most:,} {what}, as no camera or program writes"
        end = at + count_form.size + tags * entry.size
        for start in range(at + count_form.size, min(end, len(data) - entry.size + 1), entry.size):
            tag, _, values, value = entry.unpack_from(data, start)
            if tag in _PARTS and values > MOST_PARTS:
                return f"it has {values:,} strips or tiles, more than {MOST_PARTS:,}: save it in larger ones"
            if tag in (_TILE_WIDTH, _TILE_HEIGHT):
                short = order == ">" and entry.unpack_from(data, start)[1] == _SHORT
                tile[tag] = value >> (48 if big else 16) if short else value
        pixels = math.prod(tile.values())
        if most_pixels is not None and pixels > max(2 * most_pixels, _LARGE_TILE):
            return f"it claims to have tiles of {pixels:,} pixels each: save it in smaller ones"
        at = int(link.unpack_from(data, end)[0]) if end + link.size <= len(data) else 0
    return None


def read_tiff(data: bytes, where: str, max_pixels: int | None) -> tuple[np.ndarray, int | None]:
    """The first series of a TIFF file, and the axis of its channels where the file says which it is.
    `max_pixels` is the limit of the set, see `require_size`.

    Raises:
        UnreadableImage: it is damaged, or a part of it is missing.
        UserError: tifffile is not installed.
    """
    try:
        import tifffile
    except ImportError as error:
        raise UserError(
            f"{where} is a TIFF file of many channels or of a stated range, "
            f"and tifffile is not installed: {_EXTRA}"
        ) from error
    try:
        with _damages() as found, tifffile.TiffFile(io.BytesIO(data)) as file:
            series = file.series[0]
            require_size(series.shape, where, max_pixels)
            for page in series.pages:
                _require_complete(page, len(data))
            values, axes = series.asarray(), series.axes
            if found:
                raise ValueError(found[0])
            if values.shape != series.shape:
                raise ValueError("a part of it is missing")
    except UnreadableImage:
        raise
    except Exception as error:  # tifffile raises errors of many types for damaged files
        reason = reason_of(error)
        cure = f"; {_EXTRA}" if "imagecodecs" in reason else ""
        raise UnreadableImage(where, f"it cannot be decoded ({reason}){cure}") from error
    kept = [axis for axis, size in enumerate(values.shape) if size > 1 or axes[axis] in "YXSC"]
    values = values.reshape([values.shape[axis] for axis in kept])
    named = [number for number, axis in enumerate(kept) if axes[axis] in "SC"]
    return values, named[0] if len(named) == 1 and values.ndim == 3 else None


def _require_complete(page: Any, length: int) -> None:
    """Raises ValueError where a page is none, or a strip or tile of it is not in a file of `length` bytes."""
    if page is None:
        raise ValueError("a page is missing")
    offsets, counts = page.dataoffsets, page.databytecounts
    parts = list(zip(offsets, counts, strict=True))
    if not parts or any(count <= 0 or offset + count > length for offset, count in parts):
        raise ValueError("it is truncated or a part of it is missing")
    page = page.aspage()
    whole = page.compression == _UNCOMPRESSED and page.bitspersample % 8 == 0
    if whole and sum(counts) < page.size * page.bitspersample // 8:
        raise ValueError("it is truncated or a part of it is missing")


_found: ContextVar[list[str] | None] = ContextVar("_found", default=None)


class _Collector(logging.Handler):
    """Collects the errors that tifffile logs within `_damages`."""

    def emit(self, record: logging.LogRecord) -> None:
        found = _found.get()
        if found is not None:
            found.append(record.getMessage())


_COLLECTOR = _Collector(logging.ERROR)


@contextlib.contextmanager
def _damages() -> Iterator[list[str]]:
    """The errors that tifffile logs in this thread meanwhile, which nobody else sees; warnings are about what
    no pixel depends on."""
    logger = logging.getLogger("tifffile")
    logger.addHandler(_COLLECTOR)  # once, however often
    logger.propagate = False
    found: list[str] = []
    token = _found.set(found)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield found
    finally:
        _found.reset(token)
