"""A small set in COCO's format, clean, that tests break at one place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 48, 64
AREA = 20 * 14


def write_images(folder: Path, count: int = 3) -> None:
    """Images p0.jpg …, all alike in size."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = np.full((HEIGHT, WIDTH, 3), 40 * number, np.uint8)
        Image.fromarray(pixels).save(folder / f"p{number}.jpg")


def coco_content(count: int = 3) -> dict[str, Any]:
    """One object an image: box, rectangle as its polygon, area; category ids with gaps."""
    images, annotations = [], []
    for number in range(count):
        x, y = 5 + 4 * number, 6 + 3 * number
        images.append({"id": number + 1, "file_name": f"p{number}.jpg", "width": WIDTH, "height": HEIGHT})
        annotations.append(
            {
                "id": number + 11,
                "image_id": number + 1,
                "category_id": (1, 3, 90)[number % 3],
                "bbox": [x, y, 20, 14],
                "area": AREA,
                "iscrowd": 0,
                "segmentation": [[x, y, x + 20, y, x + 20, y + 14, x, y + 14]],
            }
        )
    names = {1: "cat", 3: "dog", 90: "eel"}
    categories = [{"id": key, "name": name} for key, name in names.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_content(path: Path, content: Any) -> Path:
    """The content as a file of JSON, NaN and infinities in Python's way."""
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def rectangle_runs(annotation: dict[str, Any]) -> list[int]:
    """The run lengths of an annotation's box, down the columns of the image."""
    x, y, width, height = annotation["bbox"]
    mask = np.zeros((HEIGHT, WIDTH), np.int8)
    mask[y : y + height, x : x + width] = 1
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat, prepend=0, append=0))
    return np.diff(np.r_[0, edges, flat.size]).tolist()
