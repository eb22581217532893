"""AP as VOC and COCO define it: worked out by hand, and equal to Detectron2's and pycocotools' own."""

from __future__ import annotations

import contextlib
import io
import json
import math
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from support.detection_worlds import (
    CLASSES,
    HEIGHT,
    WIDTH,
    as_instances,
    coco_file,
    random_predictions,
    random_records,
)

from siamtransfer.detection.detectron2.compat import import_detectron2, is_installed
from siamtransfer.detection.metrics.coco_ap import coco_curves
from siamtransfer.detection.metrics.score_predictions import ApKind, score_predictions
from siamtransfer.detection.metrics.voc_ap import voc_ap
from siamtransfer.utils.errors import UserError

needs_detectron2 = pytest.mark.skipif(
    not is_installed(), reason="Detectron2 is not installed: python scripts/get_detectron2.py"
)
COCO_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def one_image(*detections: tuple[float, list[float]], masks: Any = None) -> list[dict[str, Any]]:
    return [
        {
            "image_id": 3,
            "boxes": np.array([box for _, box in detections], np.float32).reshape(-1, 4),
            "scores": np.array([score for score, _ in detections], np.float32),
            "classes": np.zeros(len(detections), np.int64),
            "masks": masks,
        }
    ]


def two_objects(**flags: Any) -> list[dict[str, Any]]:
    boxes = ([0.0, 0.0, 40.0, 40.0], [60.0, 60.0, 100.0, 100.0])
    objects = [
        {"bbox": box, "bbox_mode": 0, "category_id": 0, "iscrowd": 0, "area": 1600.0, **flags}
        for box in boxes
    ]
    return [{"file_name": "3.jpg", "image_id": 3, "height": 120, "width": 160, "annotations": objects}]


HIT, MISS, LATE = (0.9, [0, 0, 40, 40]), (0.8, [100, 0, 140, 40]), (0.7, [60, 60, 100, 100])


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        # Recall 1/2, 1/2, 1 and precision 1, 1/2, 2/3: up to recall 1/2 the precision is 1, beyond it 2/3.
        ("voc", (6 * 1 + 5 * 2 / 3) / 11),
        ("voc-all-points", 1 / 2 * 1 + 1 / 2 * 2 / 3),
        ("coco", (51 * 1 + 50 * 2 / 3) / 101),
    ],
)
def test_hit_miss_hit_by_hand(metric: Any, expected: float) -> None:
    metrics = score_predictions(one_image(LATE, MISS, HIT), two_objects(), metric, ["cat"])
    for name in ("AP", "AP50", "AP75", "AP/cat"):
        assert metrics[f"detection/{name}"] == pytest.approx(100 * expected, abs=1e-9)


def test_second_detection_of_an_object_is_false() -> None:
    twice = one_image(HIT, (0.8, HIT[1]), LATE)
    for metric, expected in (("voc-all-points", 1 / 2 + 1 / 3), ("coco", (51 + 50 * 2 / 3) / 101)):
        metrics = score_predictions(twice, two_objects(), metric, ["cat"])  # type: ignore[arg-type]
        assert metrics["detection/AP50"] == pytest.approx(100 * expected)


def test_difficult_objects_and_crowds_count_neither_way() -> None:
    truth = two_objects()
    for item in truth[0]["annotations"][1:]:
        item |= {"difficult": True, "iscrowd": 1}
    kinds: tuple[ApKind, ...] = ("voc", "voc-all-points", "coco")
    for metric in kinds:
        for detections in ((HIT,), (HIT, LATE), (HIT, LATE, (0.95, LATE[1]))):
            metrics = score_predictions(one_image(*detections), truth, metric, ["cat"])
            assert metrics["detection/AP"] == pytest.approx(100)
        metrics = score_predictions(one_image(HIT, (0.95, MISS[1])), truth, metric, ["cat"])
        assert metrics["detection/AP50"] < 60


def test_iou_of_voc_counts_corner_pixels_and_must_exceed() -> None:
    """20 of 40 columns are half of a box that ends at 40: 21 x 40 of 41 x 40 pixels in VOC's count."""
    half = one_image((0.9, [0, 0, 20, 40]))
    truth = two_objects()
    del truth[0]["annotations"][1]
    assert score_predictions(half, truth, "coco", ["cat"])["detection/AP50"] > 99.9  # IoU 0.5 is enough
    # VOC counts the columns 1..20 of 1..40: an IoU of 0.5 is not above 0.5.
    assert score_predictions(half, truth, "voc", ["cat"])["detection/AP50"] == 0
    more = one_image((0.9, [0, 0, 21, 40]))
    assert score_predictions(more, truth, "voc", ["cat"])["detection/AP50"] == pytest.approx(100)


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_fast_backend_equals_pycocotools(seed: int, masks: bool) -> None:
    records = random_records(seed, masks=masks, crowds=True)
    predictions = random_predictions(records, seed, masks=masks)
    for task in ("bbox", "segm") if masks else ("bbox",):
        fast, slow = (
            coco_curves(predictions, records, len(CLASSES), task, backend)  # type: ignore[arg-type]
            for backend in ("hotcoco", "pycocotools")
        )
        assert fast.precision.shape == (10, 101, len(CLASSES), 4, 3)
        np.testing.assert_allclose(fast.precision, slow.precision, rtol=0, atol=1e-6)
        np.testing.assert_allclose(fast.recall, slow.recall, rtol=0, atol=1e-6)
    fast_numbers, slow_numbers = (
        score_predictions(predictions, records, "coco", CLASSES, backend)  # type: ignore[arg-type]
        for backend in ("hotcoco", "pycocotools")
    )
    assert fast_numbers == pytest.approx(slow_numbers, abs=1e-6, nan_ok=True)
    assert 1 < fast_numbers["detection/AP"] < 99


@pytest.mark.parametrize("seed", range(3))
def test_coco_numbers_are_those_of_pycocotools_own_summary(seed: int, tmp_path: Path) -> None:
    """By pycocotools' usual way: files on disk, loadRes, summarize."""
    coco, cocoeval = (pytest.importorskip(f"pycocotools.{name}") for name in ("coco", "cocoeval"))
    records = random_records(seed, masks=True, crowds=True)
    predictions = random_predictions(records, seed, masks=True)
    (tmp_path / "truth.json").write_text(json.dumps(coco_file(records)))
    metrics = score_predictions(predictions, records, "coco", CLASSES)
    for name, task in (("detection", "bbox"), ("segmentation", "segm")):
        results = [
            {"image_id": prediction["image_id"], "category_id": int(label) + 1, "score": float(score)}
            | (
                {"bbox": [float(v) for v in (*box[:2], *(box[2:] - box[:2]))]}
                if task == "bbox"
                else {"segmentation": {"size": mask["size"], "counts": mask["counts"].decode()}}
            )
            for prediction in predictions
            for box, label, score, mask in zip(
                prediction["boxes"],
                prediction["classes"],
                prediction["scores"],
                prediction["masks"],
                strict=True,
            )
        ]
        with contextlib.redirect_stdout(io.StringIO()):
            api = coco.COCO(tmp_path / "truth.json")
            evaluator = cocoeval.COCOeval(api, api.loadRes(results), task)
            evaluator.evaluate()
            evaluator.accumulate()
            evaluator.summarize()
        for key, value in zip(COCO_NAMES, evaluator.stats, strict=True):
            number = metrics[f"{name}/{key}"]
            assert math.isnan(number) if value == -1 else number == pytest.approx(100 * value, abs=1e-6)


@pytest.mark.detectron2
@needs_detectron2
@pytest.mark.parametrize("seed", range(2))
def test_coco_numbers_are_detectron2s(seed: int, tmp_path: Path) -> None:
    detectron2 = import_detectron2()
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.data.datasets import register_coco_instances
    from detectron2.evaluation import COCOEvaluator

    records = random_records(seed, masks=True, crowds=True)
    predictions = random_predictions(records, seed, masks=True)
    (tmp_path / "truth.json").write_text(json.dumps(coco_file(records)))
    name = f"test_coco_{seed}"
    register_coco_instances(name, {}, str(tmp_path / "truth.json"), str(tmp_path))
    try:
        DatasetCatalog.get(name)  # reads the classes
        evaluator = COCOEvaluator(name, ("bbox", "segm"), False, use_fast_impl=detectron2.compiled)
        evaluator.reset()
        evaluator.process(records, [{"instances": as_instances(prediction)} for prediction in predictions])
        with contextlib.redirect_stdout(io.StringIO()):
            expected = evaluator.evaluate()
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.pop(name)
    metrics = score_predictions(predictions, records, "coco", CLASSES)
    for name, task in (("detection", "bbox"), ("segmentation", "segm")):
        for key, value in expected[task].items():
            assert metrics[f"{name}/{key.replace('-', '/')}"] == pytest.approx(value, abs=1e-6, nan_ok=True)


@pytest.mark.detectron2
@needs_detectron2
@pytest.mark.parametrize(("year", "metric"), [(2007, "voc"), (2012, "voc-all-points")])
@pytest.mark.parametrize("seed", range(3))
def test_voc_numbers_are_detectron2s(seed: int, year: int, metric: Any, tmp_path: Path) -> None:
    import_detectron2()
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.data.datasets import register_pascal_voc
    from detectron2.evaluation import PascalVOCDetectionEvaluator

    records = random_records(seed, 60, difficult=True)
    predictions = random_predictions(records, seed)
    write_voc_truth(tmp_path, records)
    name = f"test_voc_{seed}_{year}"
    register_pascal_voc(name, str(tmp_path), "test", year, CLASSES)
    try:
        evaluator = PascalVOCDetectionEvaluator(name)
        evaluator.reset()
        evaluator.process(records, [{"instances": as_instances(prediction)} for prediction in predictions])
        expected = evaluator.evaluate()["bbox"]
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.pop(name)
    metrics = score_predictions(predictions, records, metric, CLASSES)
    assert 1 < expected["AP"] < 99
    for key, value in expected.items():
        assert metrics[f"detection/{key}"] == pytest.approx(value, abs=1e-6)
    for number, label in enumerate(CLASSES):
        ap = voc_ap(predictions, records, len(CLASSES), all_points=year == 2012)[number]
        assert metrics[f"detection/AP/{label}"] == pytest.approx(100 * ap.mean())
        assert metrics[f"detection/AP50/{label}"] == pytest.approx(100 * ap[0])


def write_voc_truth(folder: Path, records: list[dict[str, Any]]) -> None:
    (folder / "Annotations").mkdir()
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    (folder / "ImageSets" / "Main" / "test.txt").write_text(
        "".join(f"{record['image_id']}\n" for record in records)
    )
    for record in records:
        root = ET.Element("annotation")
        for item in record["annotations"]:
            element = ET.SubElement(root, "object")
            for tag, text in (
                ("name", CLASSES[item["category_id"]]),
                ("pose", "Unspecified"),
                ("truncated", "0"),
                ("difficult", str(int(item["difficult"]))),
            ):
                ET.SubElement(element, tag).text = text
            box = ET.SubElement(element, "bndbox")
            for tag, value, shift in zip(
                ("xmin", "ymin", "xmax", "ymax"), item["bbox"], (1, 1, 0, 0), strict=True
            ):
                ET.SubElement(box, tag).text = str(int(value) + shift)
        ET.ElementTree(root).write(folder / "Annotations" / f"{record['image_id']}.xml")


@pytest.mark.parametrize("backend", ["hotcoco", "pycocotools"])
def test_nothing_found_and_nothing_there(backend: Any) -> None:
    truth, nothing = two_objects(), one_image()
    metrics = score_predictions(nothing, truth, "coco", ["cat", "dog"], backend)
    assert metrics["detection/AP"] == metrics["detection/AR100"] == metrics["detection/AP/cat"] == 0
    assert math.isnan(metrics["detection/AP/dog"])  # no dog to be found
    truth[0]["annotations"] = []
    metrics = score_predictions(one_image(HIT), truth, "coco", ["cat"], backend)
    assert all(math.isnan(value) for value in metrics.values())


def test_voc_class_without_objects_is_as_in_detectron2() -> None:
    metrics = score_predictions(one_image(HIT, LATE), two_objects(), "voc", ["cat", "dog"])
    assert metrics["detection/AP/dog"] == 0 and metrics["detection/AP"] == pytest.approx(50)
    metrics = score_predictions(one_image(HIT, LATE), two_objects(), "voc-all-points", ["cat", "dog"])
    assert metrics["detection/AP/dog"] == 0 and metrics["detection/AP50/cat"] == pytest.approx(100)


@pytest.mark.parametrize("metric", ["voc", "voc-all-points", "coco"])
def test_order_of_images_and_of_detections_does_not_matter(metric: Any) -> None:
    records = random_records(5, difficult=True)
    predictions = random_predictions(records, 5)
    draw = np.random.default_rng(0)
    count = sum(len(prediction["scores"]) for prediction in predictions)
    distinct = iter(draw.permutation(count) / 1000)  # no two scores are equal
    for prediction in predictions:
        prediction["scores"] = np.array([next(distinct) for _ in prediction["scores"]], np.float32)
    before = score_predictions(predictions, records, metric, CLASSES)
    for prediction in predictions:
        order = draw.permutation(len(prediction["scores"]))
        prediction |= {key: prediction[key][order] for key in ("boxes", "scores", "classes")}
    mixed = [predictions[index] for index in draw.permutation(len(predictions))]
    assert score_predictions(mixed, records, metric, CLASSES) == pytest.approx(before, nan_ok=True)


def test_every_image_has_one_prediction() -> None:
    records = random_records(0, 3)
    predictions = random_predictions(records, 0)
    with pytest.raises(ValueError, match="differ by 1 images, 13 for one"):
        score_predictions([predictions[0], predictions[2]], records, "coco", CLASSES)
    with pytest.raises(ValueError, match="1 images have several"):
        score_predictions([*predictions, predictions[0]], records, "coco", CLASSES)
    predictions[1]["scores"] = predictions[1]["scores"][:-1]
    with pytest.raises(ValueError, match="arrays of image 13 differ in length"):
        score_predictions(predictions, records, "voc", CLASSES)


def test_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no detection metric 'map'; take voc, voc-all-points, coco"):
        score_predictions(one_image(HIT), two_objects(), "map", ["cat"])  # type: ignore[arg-type]
    with pytest.raises(UserError, match="mask AP needs a mask of every object"):
        score_predictions(one_image(HIT, masks=[{}]), two_objects(), "coco", ["cat"])
    monkeypatch.setitem(sys.modules, "hotcoco", None)
    with pytest.raises(UserError, match="needs hotcoco, which is not installed; `pip install"):
        score_predictions(one_image(HIT), two_objects(), "coco", ["cat"])
    monkeypatch.setitem(sys.modules, "pycocotools.cocoeval", None)
    with pytest.raises(UserError, match="needs pycocotools"):
        score_predictions(one_image(HIT), two_objects(), "coco", ["cat"], "pycocotools")


def test_more_detections_than_pycocotools_measures_at_once() -> None:
    records = random_records(1, 4, masks=True)
    predictions = random_predictions(records, 1, masks=True)
    busiest = max(predictions, key=lambda prediction: len(prediction["scores"]))
    times = 300 // len(busiest["scores"]) + 1
    for key in ("boxes", "scores", "classes"):
        busiest[key] = np.concatenate([busiest[key]] * times)
    busiest["masks"] = busiest["masks"] * times
    fast, slow = (
        score_predictions(predictions, records, "coco", CLASSES, backend)  # type: ignore[arg-type]
        for backend in ("hotcoco", "pycocotools")
    )
    assert fast == pytest.approx(slow, abs=1e-6, nan_ok=True)


def test_worlds_have_what_they_should() -> None:
    """The random worlds above hold every case that the comparisons are to cover."""
    records = random_records(0, masks=True, crowds=True)
    items = [item for record in records for item in record["annotations"]]
    areas = np.array([item["area"] for item in items])
    assert (areas < 32**2).any() and ((areas > 32**2) & (areas < 96**2)).any()
    assert any(item["iscrowd"] for item in items) and not all(item["iscrowd"] for item in items)
    assert any(not record["annotations"] for record in records)
    predictions = random_predictions(records, 0)
    assert any(len(prediction["scores"]) == 0 for prediction in predictions)
    scores = np.concatenate([prediction["scores"] for prediction in predictions])
    assert len(np.unique(scores)) < len(scores)
    assert all(0 <= item["bbox"][0] < item["bbox"][2] <= WIDTH for item in items)
    assert all(0 <= item["bbox"][1] < item["bbox"][3] <= HEIGHT for item in items)
