"""Fashion Scenes in the layout and the file formats of Cityscapes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from siamtransfer.data.scenes.export import COCO_SPLITS, SceneCounts, complete_folder, rendered_scenes
from siamtransfer.data.scenes.outlines import outline
from siamtransfer.data.scenes.scenes import Scene

CITY = "scenes"
GROUND = 7  # the label id of Cityscapes' road, for the background
LABELS = {
    24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train", 32: "motorcycle",
    33: "bicycle", 29: "caravan", 30: "trailer",
}  # fmt: skip
"""Label id and name that a kind of clothes gets, by its number; the last two do not count in a score."""


def write_cityscapes(folder: str | Path, counts: SceneCounts) -> None:
    """Writes scenes as Cityscapes' fine annotations, the test scenes as val.

    leftImg8bit/SPLIT/scenes/NAME_leftImg8bit.png and gtFine/SPLIT/scenes/NAME_gtFine_KIND: labelIds.png,
    instanceIds.png (1000 times the label id and the number of the object among those of its label, from 0)
    and polygons.json, whose outlines are drawn over each other from the first to the last. The ten kinds of
    clothes have the names in LABELS.

    Raises:
        UserError: the folder is not empty or cannot be written.
    """
    with complete_folder(folder) as new:
        for number, (split, scene) in enumerate(rendered_scenes(counts), 1):
            stem = f"{CITY}_000000_{number:06d}"
            images, truths = (new / kind / COCO_SPLITS[split] / CITY for kind in ("leftImg8bit", "gtFine"))
            images.mkdir(parents=True, exist_ok=True)
            truths.mkdir(parents=True, exist_ok=True)
            Image.fromarray(scene.image).save(images / f"{stem}_leftImg8bit.png")
            labels, instances = _ids(scene)
            Image.fromarray(labels).save(truths / f"{stem}_gtFine_labelIds.png")
            Image.fromarray(instances).save(truths / f"{stem}_gtFine_instanceIds.png")
            (truths / f"{stem}_gtFine_polygons.json").write_text(json.dumps(_polygons(scene)))


def _ids(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """The label ids uint8[H,W] and the instance ids uint16[H,W] of a scene."""
    ids = list(LABELS)
    labels = np.full(scene.masks.shape[1:], GROUND, np.uint8)
    instances = labels.astype(np.uint16)
    for place, (kind, mask) in enumerate(zip(scene.labels, scene.masks, strict=True)):
        earlier = int((scene.labels[:place] == kind).sum())
        labels[mask] = ids[kind]
        instances[mask] = 1000 * ids[kind] + earlier
    return labels, instances


def _polygons(scene: Scene) -> dict[str, Any]:
    names = list(LABELS.values())
    height, width = scene.image.shape[:2]
    frame = [[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]]
    objects = [
        {"label": names[kind], "polygon": outline(mask).tolist()}
        for kind, mask in zip(scene.labels, scene.masks, strict=True)
    ]
    return {
        "imgHeight": height,
        "imgWidth": width,
        "objects": [{"label": "road", "polygon": frame}, *objects],
    }
