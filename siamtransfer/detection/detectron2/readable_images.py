"""What Detectron2 cannot read of an image is said as the other engine says it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from siamtransfer.data.effort import require_bounded
from siamtransfer.detection.data.dataset_split import ImageRecord, read_image

Mapper = Callable[[ImageRecord], dict[str, Any]]


class ReadableImages:
    """A mapper of Detectron2's, of records whose image files are looked at first.

    Its reader goes through any number of scans and chunks, and raises Pillow's errors.
    """

    def __init__(self, mapper: Mapper):
        self.mapper = mapper

    def __call__(self, record: ImageRecord) -> dict[str, Any]:
        """What the mapper makes of the record.

        Raises:
            UserError: the image cannot be read, or takes more work than any ordinary one.
        """
        try:
            require_bounded(Path(record["file_name"]).read_bytes(), record["file_name"])
            return self.mapper(record)
        except Exception:
            read_image(record)  # raises the sentence, where the image is at fault
            raise
