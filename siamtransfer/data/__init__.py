"""Sets of images: opened by name or made from objects, read by index.

The names are imported at their first use, so that `import siamtransfer.data` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from siamtransfer.data.from_objects import from_array, from_images, from_torch
    from siamtransfer.data.imageset import ImageSet
    from siamtransfer.data.labelled import open_labelled
    from siamtransfer.data.registry import open_images
    from siamtransfer.data.sources import open_dataset
    from siamtransfer.data.unreadable import UnreadableImage

__all__ = [
    "ImageSet",
    "UnreadableImage",
    "from_array",
    "from_images",
    "from_torch",
    "open_dataset",
    "open_images",
    "open_labelled",
]

_MODULES = {
    "ImageSet": "imageset",
    "UnreadableImage": "unreadable",
    "from_array": "from_objects",
    "from_images": "from_objects",
    "from_torch": "from_objects",
    "open_dataset": "sources",
    "open_images": "registry",
    "open_labelled": "labelled",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"siamtransfer.data.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
