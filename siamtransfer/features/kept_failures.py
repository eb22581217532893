"""Which images of a set cannot be read, kept beside the features of the cache.

A file is named by a hash of the content of the images, of the form that they are read in, and of the versions
of the libraries that decode them. It holds the indices and the faults, with a checksum beside it.
"""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from siamtransfer.data.imageset import ImageSet, content_fingerprint
from siamtransfer.data.unreadable import BadImage
from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.features.cache import FeatureCache
from siamtransfer.features.readable import find_unreadable
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import write_checked_text
from siamtransfer.utils.json_file import read_checked_json
from siamtransfer.utils.log import say

_DECODERS = ("siamtransfer", "pillow", "simplejpeg", "tifffile", "imagecodecs", "pillow-heif", "pydicom")


def unreadable_of(
    images: ImageSet, cache: FeatureCache | None, runtime: Runtime, *, workers: int = 0
) -> list[BadImage]:
    """The images that cannot be read, in the order of the set and the same on every rank: as they are kept in
    `cache`, or by `find_unreadable`, and then kept.

    Raises:
        UserError: see `find_unreadable`.
    """
    if cache is None or not hasattr(images, "content_fingerprint"):
        return find_unreadable(images, runtime, workers=workers)
    kept, path = None, Path()
    with collectives.own_pace("reading which images are unreadable"):
        if runtime.is_main:
            path = _path(cache, images)
            kept = _read(path, images)
    kept = collectives.broadcast_object(kept)
    if kept is not None:
        return kept
    found = find_unreadable(images, runtime, workers=workers)
    with collectives.own_pace("keeping which images are unreadable"):
        if runtime.is_main:
            _write(path, found)
    return found


def _path(cache: FeatureCache, images: ImageSet) -> Path:
    key = json.dumps([content_fingerprint(images), repr(getattr(images, "form", None)), _versions()])
    return cache.folder / f"unreadable-{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def _versions() -> list[str | None]:
    """The versions of what decodes; None for what is not installed."""
    found: list[str | None] = []
    for name in _DECODERS:
        try:
            found.append(version(name))
        except PackageNotFoundError:
            found.append(None)
    return found


def _read(path: Path, images: ImageSet) -> list[BadImage] | None:
    """What is kept; None where nothing is, or where it is damaged."""
    try:
        rows = read_checked_json(path)
        return [BadImage(index, images.describe(index), why) for index, why in rows]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, IndexError):
        say(f"{path} is damaged and is not used: the images are read again")
        return None


def _write(path: Path, found: list[BadImage]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_checked_text(path, json.dumps([[image.index, image.why] for image in found]))
    except (OSError, UserError) as error:
        say(f"which images are unreadable is not kept for the next time: {error}")
