"""AP of keypoints: worked out by hand, and equal to that of Detectron2's evaluator."""

from __future__ import annotations

import contextlib
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.detection_worlds import CLASSES, as_instances, coco_file, random_predictions, random_records

from siamtransfer.detection.data.coco_keypoints import PERSON
from siamtransfer.detection.data.dataset_split import Skeleton
from siamtransfer.detection.detectron2.compat import import_detectron2, is_installed
from siamtransfer.detection.metrics.keypoint_ap import keypoint_metrics, oks_sigmas
from siamtransfer.utils.errors import UserError

SIGMAS = (0.05, 0.1, 0.08)


def one_object(points: list[float]) -> list[dict[str, Any]]:
    labelled = sum(visibility > 0 for visibility in points[2::3])
    item = {
        "bbox": [0.0, 0.0, 40.0, 40.0],
        "bbox_mode": 0,
        "category_id": 0,
        "iscrowd": 0,
        "area": 1600.0,
        "keypoints": np.array(points),
        "num_keypoints": labelled,
    }
    return [{"file_name": "1.jpg", "image_id": 1, "height": 60, "width": 60, "annotations": [item]}]


def one_detection(points: list[list[float]]) -> list[Any]:
    return [
        {
            "image_id": 1,
            "boxes": np.array([[0, 0, 40, 40]], np.float32),
            "scores": np.array([0.9], np.float32),
            "classes": np.zeros(1, np.int64),
            "masks": None,
            "keypoints": np.array([points], np.float32),
        }
    ]


@pytest.mark.parametrize(("pixels", "hit"), [(0.0, 10), (4.0, 8), (7.0, 4), (9.0, 1), (9.5, 0)])
def test_by_hand(pixels: float, hit: int) -> None:
    """OKS of one labelled point with sigma 0.1 in an area of 1600: exp(-pixels² / 128); the point that is not
    labelled counts nowhere."""
    records = one_object([10.5, 10.5, 2, 30.5, 30.5, 0])
    metrics = keypoint_metrics(
        one_detection([[10.5 + pixels, 10.5, 1], [0, 0, 1]]), records, classes=1, sigmas=(0.1, 0.1)
    )
    oks = math.exp(-(pixels**2) / 128)
    assert sum(oks >= 0.5 + 0.05 * step for step in range(10)) == hit, "the case is what it says"
    assert metrics["keypoints/AP"] == pytest.approx(10 * hit)
    assert metrics["keypoints/AP50"] == pytest.approx(100 if hit else 0)
    assert metrics["keypoints/APm"] == pytest.approx(10 * hit)
    assert math.isnan(metrics["keypoints/APl"]), "no large object"


def test_an_object_without_labelled_keypoints_counts_neither_way() -> None:
    records = one_object([0.5, 0.5, 0, 0.5, 0.5, 0])
    metrics = keypoint_metrics(one_detection([[1, 1, 1], [1, 1, 1]]), records, 1, (0.1, 0.1))
    assert math.isnan(metrics["keypoints/AP"])


def test_sigmas_are_cocos_for_cocos_keypoints_and_have_to_be_stated_for_others() -> None:
    person, other = Skeleton(PERSON, (), ()), Skeleton(("tip", "end"), (), ())
    assert len(oks_sigmas(person, [])) == 17 and oks_sigmas(person, [])[0] == pytest.approx(0.026)
    assert oks_sigmas(other, (0.1, 0.2)) == [0.1, 0.2]
    with pytest.raises(UserError, match=r"these 2 keypoints are not those .* TEST\.KEYPOINT_OKS_SIGMAS"):
        oks_sigmas(other, [])
    for wrong in ([0.1], [0.1, 0.0], [0.1, -1]):
        with pytest.raises(UserError, match="a positive number for each of the 2 keypoints"):
            oks_sigmas(other, wrong)
    with pytest.raises(UserError, match="not those of COCO's persons"):
        oks_sigmas(Skeleton(tuple(f"point {k}" for k in range(17)), (), ()), [])


def with_keypoints(records: list[Any], predictions: list[Any], seed: int) -> None:
    """Three random points in every box, some not labelled, and detections of them near or far."""
    generator = np.random.default_rng([seed, 2])
    for record in records:
        for item in record["annotations"]:
            x0, y0, x1, y1 = item["bbox"]
            points = np.floor(np.stack([generator.uniform(x0, x1, 3), generator.uniform(y0, y1, 3)], 1))
            labelled = generator.choice([0, 1, 2], 3)
            item["keypoints"] = np.column_stack([points + 0.5, labelled]).ravel()
            item["num_keypoints"] = int((labelled > 0).sum())
    for record, prediction in zip(records, predictions, strict=True):
        boxes = prediction["boxes"].astype(np.float64)
        points = generator.uniform(boxes[:, None, :2], boxes[:, None, 2:], (len(boxes), 3, 2))
        truth = [item["keypoints"].reshape(3, 3)[:, :2] for item in record["annotations"]]
        for number in range(len(boxes)):
            if truth and generator.random() < 0.8:
                points[number] = truth[generator.integers(len(truth))] + generator.normal(0, 3, (3, 2))
        scores = generator.random((len(boxes), 3, 1))
        prediction["keypoints"] = np.concatenate([points, scores], 2).astype(np.float32)


@pytest.mark.detectron2
@pytest.mark.skipif(
    not is_installed(), reason="Detectron2 is not installed: python scripts/get_detectron2.py"
)
@pytest.mark.parametrize("seed", range(2))
def test_numbers_are_those_of_detectron2s_evaluator(seed: int, tmp_path: Path) -> None:
    import_detectron2()
    import torch
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.data.datasets import register_coco_instances
    from detectron2.evaluation import COCOEvaluator

    records = random_records(seed, 16, crowds=True)
    predictions = random_predictions(records, seed)
    with_keypoints(records, predictions, seed)
    content = coco_file(records)
    items = [item for record in records for item in record["annotations"]]
    for row, item in zip(content["annotations"], items, strict=True):
        points = item["keypoints"].reshape(3, 3) - (0.5, 0.5, 0)
        row |= {"keypoints": points.ravel().tolist(), "num_keypoints": item["num_keypoints"]}
    (tmp_path / "truth.json").write_text(json.dumps(content))
    outputs = []
    for prediction in predictions:
        instances = as_instances(prediction)
        instances.pred_keypoints = torch.from_numpy(prediction["keypoints"].copy())
        outputs.append({"instances": instances})
    name = f"test_keypoints_{seed}"
    register_coco_instances(name, {}, str(tmp_path / "truth.json"), str(tmp_path))
    try:
        DatasetCatalog.get(name)  # reads the classes
        evaluator = COCOEvaluator(
            name, ("keypoints",), False, use_fast_impl=False, kpt_oks_sigmas=list(SIGMAS)
        )
        evaluator.reset()
        evaluator.process(records, outputs)
        with contextlib.redirect_stdout(io.StringIO()):
            expected = evaluator.evaluate()["keypoints"]
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.pop(name)
    metrics = keypoint_metrics(predictions, records, len(CLASSES), SIGMAS)
    assert 1 < expected["AP"] < 99
    for key in ("AP", "AP50", "AP75", "APm", "APl"):
        assert metrics[f"keypoints/{key}"] == pytest.approx(expected[key], abs=1e-6, nan_ok=True)
