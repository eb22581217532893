"""Random images, objects and detections for the tests of the evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as run_lengths

HEIGHT, WIDTH = 120, 160
CLASSES = ("cat", "dog", "fish")


def random_records(
    seed: int, images: int = 12, *, masks: bool = False, crowds: bool = False, difficult: bool = False
) -> list[dict[str, Any]]:
    """Records with 0 to 6 objects each, of all three of COCO's sizes; every fourth image has none."""
    generator = np.random.default_rng(seed)
    records = []
    for number in range(images):
        objects = []
        for _ in range(0 if number % 4 == 0 else int(generator.integers(1, 7))):
            box = random_box(generator)
            item = {
                "bbox": box,
                "bbox_mode": 0,
                "category_id": int(generator.integers(len(CLASSES))),
                "iscrowd": int(crowds and generator.random() < 0.25),
                "area": float((box[2] - box[0]) * (box[3] - box[1])),
            }
            if difficult:
                item["difficult"] = bool(generator.random() < 0.3)
            if masks:
                item["segmentation"] = ellipse(box, generator)
                item["area"] = float(run_lengths.area(item["segmentation"]))
            objects.append(item)
        records.append(
            {
                "file_name": f"{number}.jpg",
                "image_id": 10 * number + 3,
                "height": HEIGHT,
                "width": WIDTH,
                "annotations": objects,
            }
        )
    return records


def random_predictions(
    records: Sequence[dict[str, Any]], seed: int, *, masks: bool = False
) -> list[dict[str, Any]]:
    """Detections near the objects, some of the wrong class, and others anywhere; scores of two decimals, so
    that many are equal; every fifth image has none."""
    generator = np.random.default_rng([seed, 1])
    predictions = []
    for number, record in enumerate(records):
        boxes, labels = [], []
        for item in record["annotations"] if number % 5 else []:
            for _ in range(int(generator.integers(0, 4))):
                x0, y0, x1, y1 = np.array(item["bbox"]) + generator.normal(0, 4, 4)
                boxes.append([x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)])
                labels.append(
                    item["category_id"] if generator.random() < 0.8 else int(generator.integers(len(CLASSES)))
                )
        for _ in range(int(generator.integers(0, 5)) if number % 5 else 0):
            boxes.append(random_box(generator))
            labels.append(int(generator.integers(len(CLASSES))))
        predictions.append(
            {
                "image_id": record["image_id"],
                "boxes": np.array(boxes, np.float32).reshape(-1, 4),
                "scores": generator.random(len(boxes)).round(2).astype(np.float32),
                "classes": np.array(labels, np.int64),
                "masks": [ellipse(box, generator) for box in boxes] if masks else None,
            }
        )
    return predictions


def random_box(generator: np.random.Generator) -> list[float]:
    """Corners, integers, of a box of 3 to 110 pixels a side."""
    width, height = generator.integers(3, 110, 2)
    left, top = generator.integers(0, WIDTH - width), generator.integers(0, HEIGHT - height)
    return [float(left), float(top), float(left + width), float(top + height)]


def ellipse(box: Sequence[float], generator: np.random.Generator) -> dict[str, Any]:
    """Run lengths of an ellipse in the box, a few of its pixels missing."""
    x0, y0, x1, y1 = box
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    inside = ((2 * x - x0 - x1) / (x1 - x0)) ** 2 + ((2 * y - y0 - y1) / (y1 - y0)) ** 2 <= 1
    return run_lengths.encode(np.asfortranarray(inside & (generator.random(inside.shape) < 0.95), np.uint8))


def coco_file(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The same objects as the content of a COCO file."""
    annotations = []
    for record in records:
        for item in record["annotations"]:
            x0, y0, x1, y1 = item["bbox"]
            row = {
                "id": len(annotations) + 1,
                "image_id": record["image_id"],
                "category_id": item["category_id"] + 1,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": item["area"],
                "iscrowd": item["iscrowd"],
            }
            if "segmentation" in item:
                mask = item["segmentation"]
                row["segmentation"] = {"size": mask["size"], "counts": mask["counts"].decode()}
            annotations.append(row)
    keys = ("image_id", "file_name", "height", "width")
    images = [{key.replace("image_id", "id"): record[key] for key in keys} for record in records]
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def as_instances(prediction: dict[str, Any]) -> Any:
    """The prediction as Detectron2's Instances."""
    import torch
    from detectron2.structures import Boxes, Instances

    fields = {
        "pred_boxes": Boxes(torch.from_numpy(prediction["boxes"].copy())),
        "scores": torch.from_numpy(prediction["scores"]),
        "pred_classes": torch.from_numpy(prediction["classes"]),
    }
    if prediction["masks"] is not None:
        masks = [run_lengths.decode(mask) for mask in prediction["masks"]]
        fields["pred_masks"] = torch.from_numpy(np.array(masks, bool).reshape(-1, HEIGHT, WIDTH))
    return Instances((HEIGHT, WIDTH), **fields)
