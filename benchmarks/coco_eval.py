"""COCO's evaluation by the fast backend against pycocotools, every number compared, in one run.

    python -m benchmarks.coco_eval [--images 5000] [--detections 90] [--classes 80] [--masks]

The images are synthetic, of COCO's size and density: about 7 objects each, one in fifty a crowd; detections
are scattered around the objects, half of them of another class. Both ways begin with the same predictions in
memory and end with all named numbers. With --masks detections and objects are ten-cornered masks, scored as
boxes and as masks. The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from siamtransfer.detection.data.dataset_split import XYWH, ImageRecord
from siamtransfer.detection.metrics.prediction import Prediction
from siamtransfer.detection.metrics.score_predictions import score_predictions
from siamtransfer.distributed.runtime import cpu_count
from siamtransfer.utils.log import say
from siamtransfer.utils.strict_json import to_json

HEIGHT, WIDTH, OBJECTS, CROWDS, CORNERS = 480, 640, 7.3, 0.02, 10
FAST, REFERENCE = "hotcoco", "pycocotools"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, size in (("images", 5000), ("detections", 90), ("classes", 80), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=size)
    parser.add_argument("--masks", action="store_true", help="score masks too (pycocotools takes minutes)")
    asked = parser.parse_args()
    records, predictions = scattered(asked)
    classes = [f"class {number}" for number in range(asked.classes)]
    seconds: dict[str, float] = {}
    found: dict[str, dict[str, float]] = {}
    for backend in (FAST, REFERENCE):
        before = time.perf_counter()
        found[backend] = score_predictions(predictions, records, "coco", classes, backend)  # type: ignore[arg-type]
        seconds[backend] = time.perf_counter() - before
        say(f"{backend:12} {seconds[backend]:8.2f} s   AP {found[backend]['detection/AP']:.3f}")
    fast, reference = (np.array(list(found[backend].values())) for backend in (FAST, REFERENCE))
    assert list(found[FAST]) == list(found[REFERENCE]) and np.array_equal(np.isnan(fast), np.isnan(reference))
    metrics = {
        **{f"{backend} s": value for backend, value in seconds.items()},
        "ratio": seconds[REFERENCE] / seconds[FAST],
        "numbers compared": float(len(fast)),
        "largest difference": float(np.nanmax(np.abs(fast - reference))),
    }
    largest = metrics["largest difference"]
    say(f"{metrics['ratio']:.1f} times faster; {len(fast)} numbers differ by at most {largest:.1e}")
    protocol = {**vars(asked), "processors": cpu_count()}
    print(to_json({"task": "benchmark/coco_eval", "metrics": metrics, "protocol": protocol}))


def scattered(asked: Any) -> tuple[list[ImageRecord], list[Prediction]]:
    """Records and predictions from `asked.seed`."""
    draw = np.random.default_rng(asked.seed)
    records: list[ImageRecord] = []
    predictions: list[Prediction] = []
    for number in range(1, asked.images + 1):
        boxes = random_boxes(draw, draw.poisson(OBJECTS))
        labels = draw.integers(asked.classes, size=len(boxes))
        masks = cut_out(boxes) if asked.masks else [None] * len(boxes)
        objects = [
            {
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "bbox_mode": XYWH,
                "category_id": int(label),
                "area": 0.6 * (x1 - x0) * (y1 - y0),
                "iscrowd": int(draw.random() < CROWDS),
            }
            | ({"segmentation": mask} if mask else {})
            for (x0, y0, x1, y1), label, mask in zip(boxes.tolist(), labels, masks, strict=True)
        ]
        records.append(
            {
                "file_name": f"{number}.jpg",
                "image_id": number,
                "height": HEIGHT,
                "width": WIDTH,
                "annotations": objects,
            }
        )
        near, classes = (
            random_boxes(draw, asked.detections),
            draw.integers(asked.classes, size=asked.detections),
        )
        if len(boxes):
            source = draw.integers(len(boxes), size=asked.detections)
            near = in_frame(boxes[source] + draw.normal(0, 8, near.shape))
            classes = np.where(draw.random(asked.detections) < 0.5, labels[source], classes)
        predictions.append(
            {
                "image_id": number,
                "boxes": near.astype(np.float32),
                "scores": draw.random(asked.detections).astype(np.float32),
                "classes": classes,
                "masks": cut_out(near) if asked.masks else None,
            }
        )
    return records, predictions


def random_boxes(draw: np.random.Generator, count: int) -> np.ndarray:
    """Boxes float64[count,4] of 4 to 250 pixels a side, small ones as common as large ones."""
    sides = 2 ** draw.uniform(2, 8, (count, 2))
    start = draw.uniform(0, 1, (count, 2)) * ([WIDTH, HEIGHT] - sides)
    return np.concatenate([start, start + sides], axis=1)


def in_frame(boxes: np.ndarray) -> np.ndarray:
    """Boxes with sides of a pixel at least, inside the image."""
    start = np.clip(boxes[:, :2], 0, [WIDTH - 1, HEIGHT - 1])
    return np.concatenate([start, np.clip(boxes[:, 2:], start + 1, [WIDTH, HEIGHT])], axis=1)


def cut_out(boxes: np.ndarray) -> list[dict[str, Any]]:
    """A polygon on the ellipse in each box, as run lengths."""
    from pycocotools import mask as run_lengths

    angle = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    centre, radius = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    corners = centre[:, None] + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return (
        run_lengths.frPyObjects(corners.reshape(len(boxes), -1).tolist(), HEIGHT, WIDTH) if len(boxes) else []
    )


if __name__ == "__main__":
    main()
