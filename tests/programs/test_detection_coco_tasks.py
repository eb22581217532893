"""eval/detection.py for COCO's keypoints and panoptic segmentation, from the command line to the record, with
real Detectron2 on the CPU, at tiny size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.checkpoint_files import random_state

from siamtransfer.data.scenes.export import SceneCounts
from siamtransfer.data.scenes.export_coco_tasks import write_coco_keypoints, write_coco_panoptic
from siamtransfer.detection.detectron2 import convert
from siamtransfer.detection.detectron2.compat import is_installed
from siamtransfer.programs import detection, to_d2
from siamtransfer.training.journal_rows import read_rows

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.skipif(
        not is_installed(), reason="Detectron2 is not installed: python scripts/get_detectron2.py"
    ),
]
SIZE = 64
TINY = [
    "INPUT.MIN_SIZE_TRAIN", f"({SIZE},)",
    "INPUT.MIN_SIZE_TEST", str(SIZE),
    "DATALOADER.NUM_WORKERS", "0",
    "SOLVER.IMS_PER_BATCH", "2",
    "SOLVER.STEPS", "()",
    "SOLVER.WARMUP_ITERS", "1",
    "MODEL.FPN.OUT_CHANNELS", "16",
    "MODEL.ROI_BOX_HEAD.FC_DIM", "32",
    "MODEL.ROI_MASK_HEAD.CONV_DIM", "16",
    "MODEL.SEM_SEG_HEAD.CONVS_DIM", "32",
    "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", "(16, 16)",
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "8",
    "MODEL.RPN.POST_NMS_TOPK_TRAIN", "16",
    "MODEL.RPN.POST_NMS_TOPK_TEST", "8",
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0",
    "MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH", "0.0",
    "MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT", "1",
    "TEST.PRECISE_BN.NUM_ITER", "2",
]  # fmt: skip
SIGMAS = ["TEST.KEYPOINT_OKS_SIGMAS", "(0.1, 0.1, 0.1, 0.1)"]
FILES = {"keypoints": "person_keypoints", "panoptic": "panoptic"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes in both layouts, and narrow weights a.pkl and b.pkl (ResNet-18)."""
    root = tmp_path_factory.mktemp("coco_tasks")
    counts = SceneCounts(train=6, test=3, size=SIZE)
    write_coco_keypoints(root / "keypoints", counts)
    write_coco_panoptic(root / "panoptic", counts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert, "is_installed", lambda: False)  # the numerical proof has tests of its own
        for name, seed in (("a", 0), ("b", 1)):
            torch.save(random_state("resnet18", 8, "imagenet", seed=seed), root / f"{name}.pth")
            to_d2.main([str(root / f"{name}.pth"), str(root / f"{name}.pkl")])
    return root


def split(data: Path, kind: str, name: str) -> str:
    return f"{data}/annotations/{FILES[kind]}_{name}.json@{data}/{name}"


def measure(
    folder: Path, config: str, kind: str, run: Path, *more: str, steps: int = 2, data: Path | None = None
) -> dict[str, Any]:
    at = data or folder / kind
    arguments = ["--config", config, "--weights", str(folder / "a.pkl"), "--run", str(run)]
    arguments += ["--train", split(at, kind, "train"), "--test", split(at, kind, "val")]
    record = detection.main([*arguments, *more, *TINY, "SOLVER.MAX_ITER", str(steps)])
    assert record is not None
    return record


def test_keypoints_train_and_score(folder: Path, tmp_path: Path) -> None:
    record = measure(folder, "coco-keypoints-1x", "keypoints", tmp_path / "run", *SIGMAS)
    assert record["task"] == "keypoint-detection"
    metrics, protocol = record["metrics"], record["protocol"]
    for name in ("keypoints/AP", "keypoints/AP50", "keypoints/AR", "detection/AP"):
        assert 0 <= metrics[name] <= 100
    assert protocol["settings"]["MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS"] == 4
    assert protocol["settings"]["MODEL.ROI_HEADS.NUM_CLASSES"] == 1
    assert protocol["data"]["keypoints"] == ["top", "left", "right", "bottom"]
    assert "sigmas 0.1, 0.1, 0.1, 0.1" in protocol["metric"]
    assert protocol["interval"] is None, "one trial: an average precision has no value of an image"
    trial = record["provenance"]["arms"][0]["trials"][0]
    assert trial["tensors_proved"] == 120
    assert trial["AP_by_step"] == [[2, metrics["keypoints/AP"]]]
    made = tmp_path / "run" / "a" / "trial-0"
    assert read_rows(made / "metrics.jsonl")[-2]["loss_keypoint"] > 0
    with Image.open(made / "predictions.png") as picture:
        assert picture.width > 2 * SIZE


def test_panoptic_trains_scores_and_compares(folder: Path, tmp_path: Path) -> None:
    options = ["--compare", str(folder / "b.pkl")]
    record = measure(folder, "coco-panoptic-1x", "panoptic", tmp_path / "run", *options)
    assert record["task"] == "panoptic-segmentation"
    metrics, protocol = record["metrics"], record["protocol"]
    for name in ("panoptic/PQ", "panoptic/SQ", "panoptic/RQ", "detection/AP", "segmentation/AP"):
        assert 0 <= metrics[name] <= 100
    assert "panoptic/PQ/background" in metrics
    assert protocol["settings"]["MODEL.SEM_SEG_HEAD.NUM_CLASSES"] == 2
    assert protocol["data"]["stuff"] == 1
    low, high = (metrics[f"panoptic/PQ/images_{end}"] for end in ("low", "high"))
    assert low <= metrics["panoptic/PQ"] <= high
    assert {f"compare/panoptic/PQ/{end}" for end in ("difference", "images_low", "images_high")} <= set(
        metrics
    )
    made = tmp_path / "run" / "a" / "trial-0"
    with np.load(made / "panoptic_counts.npz") as arrays:
        assert arrays["counts"].shape == (3, 11, 4)
    assert read_rows(made / "metrics.jsonl")[-2]["loss_sem_seg"] > 0
    assert record["provenance"]["arms"][0]["trials"][0]["tensors_proved"] == 120
