"""Many-object Fashion Scenes on disk in the layouts of COCO's keypoints and of COCO's panoptic segmentation.

Source of the formats: cocodataset.org/#format-data. Images, and what is kept of an object in both, are those
of export.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from siamtransfer.data.scenes.export import (
    COCO_SPLITS,
    DIFFICULT_BELOW,
    SceneCounts,
    add_to_coco,
    complete_folder,
    empty_coco,
    save_images,
)
from siamtransfer.data.scenes.objects import CLASSES
from siamtransfer.data.scenes.scenes import Scene

KEYPOINTS = ("top", "left", "right", "bottom")
SKELETON = ((1, 2), (1, 3), (2, 4), (3, 4))  # pairs of keypoints, counted from 1
BACKGROUND = len(CLASSES) + 1
"""The category id of the background, the only class of stuff."""
_LABELLED = 2  # COCO's visibility of a keypoint that is labelled and not covered
_OBJECT = 1000  # times the number of an object is part of its segment's id


def write_coco_keypoints(folder: str | Path, counts: SceneCounts) -> None:
    """Writes train/, val/ (the test scenes) and annotations/person_keypoints_{train,val}.json.

    All objects are of one category, garment. Its keypoints are the outermost visible pixels of an object in
    the four directions (the middle one where several are). An object of which less than DIFFICULT_BELOW is
    visible has no labelled keypoint, as small persons in COCO have none.

    Raises:
        UserError: the folder is not empty or cannot be written.
    """
    category = {"id": 1, "name": "garment", "keypoints": list(KEYPOINTS), "skeleton": list(SKELETON)}
    with complete_folder(folder) as new:
        files = {split: empty_coco(split, counts.seed) for split in COCO_SPLITS.values()}
        for number, split, scene in save_images(new, counts):
            annotations = files[split]["annotations"]
            before = len(annotations)
            add_to_coco(files[split], number, scene)
            for item, mask, visible in zip(annotations[before:], scene.masks, scene.visible, strict=True):
                labelled = bool(visible >= DIFFICULT_BELOW)
                item["category_id"] = 1
                item["keypoints"] = extreme_points(mask) if labelled else [0] * 3 * len(KEYPOINTS)
                item["num_keypoints"] = len(KEYPOINTS) if labelled else 0
        (new / "annotations").mkdir()
        for split, content in files.items():
            path = new / "annotations" / f"person_keypoints_{split}.json"
            path.write_text(json.dumps(content | {"categories": [category]}))


def extreme_points(mask: np.ndarray) -> list[int]:
    """x, y and visibility of the topmost, leftmost, rightmost and lowest pixel of mask bool[H,W], in turn."""
    rows, columns = np.nonzero(mask)
    points = []
    for values, edge in (
        (rows, rows.min()),
        (columns, columns.min()),
        (columns, columns.max()),
        (rows, rows.max()),
    ):
        on_edge = np.flatnonzero(values == edge)
        middle = on_edge[len(on_edge) // 2]  # pixels are listed row by row
        points += [int(columns[middle]), int(rows[middle]), _LABELLED]
    return points


def write_coco_panoptic(folder: str | Path, counts: SceneCounts) -> None:
    """Writes train/, val/ (the test scenes), annotations/instances_{train,val}.json as `write_coco` does,
    annotations/panoptic_{train,val}.json and panoptic_{train,val}/NNNNNN.png.

    Objects are things with the category ids 1 to 10; the background is stuff with the id 11. A pixel's
    segment id is R + 256 G + 65536 B.

    Raises:
        UserError: the folder is not empty or cannot be written.
    """
    things = [{"id": k, "name": name, "isthing": 1} for k, name in enumerate(CLASSES, 1)]
    categories = [*things, {"id": BACKGROUND, "name": "background", "isthing": 0}]
    with complete_folder(folder) as new:
        instances = {split: empty_coco(split, counts.seed) for split in COCO_SPLITS.values()}
        panoptic: dict[str, list[dict[str, Any]]] = {split: [] for split in instances}
        for split in instances:
            (new / f"panoptic_{split}").mkdir()
        for number, split, scene in save_images(new, counts):
            add_to_coco(instances[split], number, scene)
            ids = segment_ids(scene)
            name = f"{number:06d}.png"
            Image.fromarray(rgb_of(ids)).save(new / f"panoptic_{split}" / name)
            panoptic[split].append({"image_id": number, "file_name": name, "segments_info": _segments(ids)})
        (new / "annotations").mkdir()
        for split, content in instances.items():
            text = json.dumps(content)
            (new / "annotations" / f"instances_{split}.json").write_text(text)
            content |= {"categories": categories, "annotations": panoptic[split]}
            (new / "annotations" / f"panoptic_{split}.json").write_text(json.dumps(content))


def segment_ids(scene: Scene) -> np.ndarray:
    """int64[H,W]: the background has its category id, object k of category c the id 1000 (k + 1) + c."""
    ids = np.full(scene.masks.shape[1:], BACKGROUND, np.int64)
    for number, (mask, label) in enumerate(zip(scene.masks, scene.labels, strict=True), 1):
        ids[mask] = _OBJECT * number + label + 1
    return ids


def rgb_of(ids: np.ndarray) -> np.ndarray:
    """int64[H,W] as the colours uint8[H,W,3] of COCO's panoptic PNGs."""
    return np.stack([ids & 255, ids >> 8 & 255, ids >> 16 & 255], axis=-1).astype(np.uint8)


def _segments(ids: np.ndarray) -> list[dict[str, Any]]:
    segments = []
    for value in np.unique(ids).tolist():
        rows, columns = np.nonzero(ids == value)
        left, top = int(columns.min()), int(rows.min())
        segments.append(
            {
                "id": value,
                "category_id": value % _OBJECT,
                "iscrowd": 0,
                "area": len(rows),
                "bbox": [left, top, int(columns.max()) + 1 - left, int(rows.max()) + 1 - top],
            }
        )
    return segments
