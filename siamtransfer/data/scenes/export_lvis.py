"""Fashion Scenes in the layout and the file format of LVIS v1."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from siamtransfer.data.scenes.export import (
    COCO_SPLITS,
    JPEG_QUALITY,
    SceneCounts,
    complete_folder,
    rendered_scenes,
)
from siamtransfer.data.scenes.objects import CLASSES
from siamtransfer.data.scenes.outlines import outline
from siamtransfer.data.scenes.scenes import Scene

FREQUENCIES = "rrrcccffff"
"""Rare, common or frequent: the classes from the one in the fewest training scenes to the one in the most.
LVIS's own limits, 10 and 100 images, would put all classes of a small set into one group."""


def write_lvis(folder: str | Path, counts: SceneCounts) -> None:
    """Writes scenes as LVIS v1: images in coco/train2017 and coco/val2017 (the test scenes), annotations in
    lvis/lvis_v1_{train,val}.json.

    A class that is not in an image is checked as absent in every second image (neg_category_ids), and in
    every fifth image the first class is said to be incompletely annotated (not_exhaustive_category_ids).

    Raises:
        UserError: the folder is not empty or cannot be written.
    """
    with complete_folder(folder) as new:
        (new / "lvis").mkdir()
        files: dict[str, dict[str, Any]] = {}
        for number, (split, scene) in enumerate(rendered_scenes(counts), 1):
            part = COCO_SPLITS[split]
            path = new / "coco" / f"{part}2017" / f"{number:012d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(scene.image).save(path, quality=JPEG_QUALITY, subsampling=0)
            content = files.setdefault(part, {"info": {"version": "v1"}, "images": [], "annotations": []})
            _add(content, number, f"{part}2017/{path.name}", scene)
        categories = _categories(files[COCO_SPLITS["train"]])
        for part, content in files.items():
            content["categories"] = categories
            (new / "lvis" / f"lvis_v1_{part}.json").write_text(json.dumps(content))


def _add(content: dict[str, Any], number: int, path: str, scene: Scene) -> None:
    """Appends the image and its objects to a file of LVIS."""
    height, width = scene.image.shape[:2]
    present = sorted({int(label) + 1 for label in scene.labels})
    absent = [key for key in range(1, len(CLASSES) + 1) if key not in present]
    content["images"].append(
        {
            "id": number,
            "height": height,
            "width": width,
            "coco_url": f"http://images.cocodataset.org/{path}",
            "neg_category_ids": [key for key in absent if (key + number) % 2],
            "not_exhaustive_category_ids": present[:1] if number % 5 == 0 else [],
        }
    )
    for label, mask, (left, top, right, bottom) in zip(
        scene.labels, scene.masks, scene.boxes.tolist(), strict=True
    ):
        content["annotations"].append(
            {
                "id": len(content["annotations"]) + 1,
                "image_id": number,
                "category_id": int(label) + 1,
                "bbox": [left, top, right - left, bottom - top],
                "area": int(mask.sum()),
                "segmentation": [outline(mask, edges=True).ravel().tolist()],
            }
        )


def _categories(train: dict[str, Any]) -> list[dict[str, Any]]:
    """The categories with their counts in the training file."""
    keys = range(1, len(CLASSES) + 1)
    objects = [[item for item in train["annotations"] if item["category_id"] == key] for key in keys]
    images = [len({item["image_id"] for item in of_class}) for of_class in objects]
    ranks = np.argsort(np.argsort(images, kind="stable"), kind="stable")
    return [
        {
            "id": key,
            "name": CLASSES[key - 1],
            "synonyms": [CLASSES[key - 1]],
            "frequency": FREQUENCIES[ranks[key - 1]],
            "image_count": images[key - 1],
            "instance_count": len(objects[key - 1]),
        }
        for key in keys
    ]
