"""Detection data in Detectron2's catalogs."""

from __future__ import annotations

from collections.abc import Sequence

from siamtransfer.detection.data.dataset_split import ImageRecord
from siamtransfer.detection.data.datasets import DetectionData
from siamtransfer.detection.detectron2.compat import import_detectron2


def register(data: DetectionData) -> tuple[str, str]:
    """Registers the train and the test data in Detectron2's catalogs; returns their names there.

    The names come from the fingerprints, so registering the same data again changes nothing.

    Raises:
        UserError: Detectron2 is absent.
    """
    import_detectron2()
    from detectron2.data import DatasetCatalog, MetadataCatalog

    names = []
    for role, fingerprint, records in (
        ("train", data.train_fingerprint, data.train),
        ("test", data.test_fingerprint, data.test),
    ):
        name = f"siamtransfer_{role}_{fingerprint.replace('+', '_')[:24]}"
        if name in DatasetCatalog.list():
            DatasetCatalog.remove(name)
            MetadataCatalog.pop(name)
        DatasetCatalog.register(name, lambda records=records: with_box_modes(records))
        MetadataCatalog.get(name).set(thing_classes=list(data.classes))
        if data.skeleton is not None:
            MetadataCatalog.get(name).set(
                keypoint_names=list(data.skeleton.names), keypoint_flip_map=list(data.skeleton.flips)
            )
        names.append(name)
    return names[0], names[1]


def with_box_modes(records: Sequence[ImageRecord]) -> list[ImageRecord]:
    """Copies of the records with box modes of Detectron2's own type."""
    from detectron2.structures import BoxMode

    return [
        record
        | {
            "annotations": [
                annotation | {"bbox_mode": BoxMode(annotation["bbox_mode"])}
                for annotation in record["annotations"]
            ]
        }
        for record in records
    ]
