"""A picture of annotated objects beside detections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from siamtransfer.detection.data.coco_masks import encoded
from siamtransfer.detection.data.dataset_split import ImageRecord, corners, read_image
from siamtransfer.detection.metrics.prediction import Prediction, in_order
from siamtransfer.utils.files import atomic_write

GAP = 6  # white pixels around every picture
SIDES = (160, 480)  # the shorter side is enlarged to the first, the longer one reduced to the second
COLOURS = (
    (230, 25, 75),
    (60, 180, 75),
    (67, 99, 216),
    (245, 130, 49),
    (145, 30, 180),
    (70, 200, 220),
    (240, 50, 230),
    (154, 99, 36),
    (0, 128, 128),
    (128, 128, 0),
)
MASK_OPACITY = 0.4
DOT = 3  # the radius of a keypoint


class DrawnObject(NamedTuple):
    """One object in a picture; points: keypoints[K,3], x, y and a number above 0 where it is drawn."""

    box: Sequence[float]
    label: int
    caption: str
    mask: dict[str, Any] | None
    points: np.ndarray | None = None


def draw_predictions(
    path: str | Path,
    records: Sequence[ImageRecord],
    predictions: Sequence[Prediction],
    classes: Sequence[str],
    *,
    count: int = 8,
    least_score: float = 0.5,
    edges: Sequence[tuple[int, int]] = (),
) -> None:
    """Writes a PNG with a row for each of `count` images, taken at equal distances from the records.

    On the left are the annotated objects, on the right the detections with a score of at least `least_score`;
    boxes and masks have the colour of the class. `edges` are pairs of keypoints that a line joins.

    Raises:
        UserError: an image cannot be read or the file not be written.
        ValueError: predictions and records do not belong together.
    """
    predictions = in_order(predictions, records)
    chosen = np.linspace(0, len(records) - 1, min(count, len(records))).round().astype(int)
    rows = []
    for index in chosen.tolist():
        record, image = records[index], read_image(records[index])
        sides = (_annotated(record, classes), _detected(predictions[index], classes, least_score))
        rows.append([_draw(image, drawn, edges) for drawn in sides])
    width = max(sum(picture.width + GAP for picture in row) for row in rows) + GAP
    sheet = Image.new("RGB", (width, sum(row[0].height + GAP for row in rows) + GAP), "white")
    top = GAP
    for row in rows:
        left = GAP
        for picture in row:
            sheet.paste(picture, (left, top))
            left += picture.width + GAP
        top += row[0].height + GAP
    with atomic_write(path) as file:
        sheet.save(file, format="PNG")


def _annotated(record: ImageRecord, classes: Sequence[str]) -> list[DrawnObject]:
    size = record["height"], record["width"]
    drawn = []
    for item in record["annotations"]:
        mask = encoded(item["segmentation"], *size) if "segmentation" in item else None
        notes = [note for note in ("difficult", "iscrowd") if item.get(note)]
        caption = " ".join([classes[item["category_id"]], *notes])
        points = item["keypoints"].reshape(-1, 3) if "keypoints" in item else None
        drawn.append(DrawnObject(corners(item), item["category_id"], caption, mask, points))
    return drawn


def _detected(prediction: Prediction, classes: Sequence[str], least_score: float) -> list[DrawnObject]:
    masks: Sequence[Any] | None = prediction["masks"]
    if masks is None:
        masks = [None] * len(prediction["scores"])
    of_keypoints: Mapping[str, Any] = prediction
    points: Sequence[Any] = of_keypoints.get("keypoints", [None] * len(prediction["scores"]))
    rows = zip(
        prediction["boxes"].tolist(),
        prediction["classes"].tolist(),
        prediction["scores"].tolist(),
        masks,
        points,
        strict=True,
    )
    best_last = sorted(rows, key=lambda row: row[2])
    return [
        DrawnObject(box, label, f"{classes[label]} {score:.2f}", mask, keypoints)
        for box, label, score, mask, keypoints in best_last
        if score >= least_score
    ]


def _draw(image: np.ndarray, drawn: Sequence[DrawnObject], edges: Sequence[tuple[int, int]]) -> Image.Image:
    pixels = image.astype(np.float32)
    for item in drawn:
        if item.mask is not None:
            from pycocotools import mask as run_lengths

            inside = run_lengths.decode(item.mask).astype(bool)
            pixels[inside] += MASK_OPACITY * (np.array(_colour(item.label), np.float32) - pixels[inside])
    picture = Image.fromarray(pixels.round().astype(np.uint8))
    least, most = SIDES
    scale = min(max(1.0, least / min(picture.size)), most / max(picture.size))
    picture = picture.resize((round(picture.width * scale), round(picture.height * scale)))
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(11)
    for item in drawn:
        x0, y0, x1, y1 = (value * scale for value in item.box)
        pen.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=_colour(item.label), width=2)
        where = (x0 + 2, max(y0, 0))
        pen.rectangle(pen.textbbox(where, item.caption, font=font), fill=_colour(item.label))
        pen.text(where, item.caption, fill="white", font=font)
        if item.points is not None:
            _draw_points(pen, item.points * (scale, scale, 1), edges, _colour(item.label))
    return picture


def _draw_points(
    pen: ImageDraw.ImageDraw,
    points: np.ndarray,
    edges: Sequence[tuple[int, int]],
    colour: tuple[int, int, int],
) -> None:
    """points[K,3] as dots, each in a colour of its own, and lines between the joined ones."""
    shown = points[:, 2] > 0
    for a, b in edges:
        if shown[a] and shown[b]:
            pen.line([*points[a, :2], *points[b, :2]], fill=colour, width=2)
    for number, (x, y, _) in enumerate(points):
        if shown[number]:
            box = (x - DOT, y - DOT, x + DOT, y + DOT)
            pen.ellipse(box, fill=_colour(number + 1), outline="white")


def _colour(label: int) -> tuple[int, int, int]:
    return COLOURS[label % len(COLOURS)]
