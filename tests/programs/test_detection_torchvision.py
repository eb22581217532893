"""eval/detection.py for semantic segmentation with torchvision, from the command line to the record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.checkpoint_files import random_state

from siamtransfer.detection.detectron2 import convert
from siamtransfer.detection.detectron2.compat import is_installed
from siamtransfer.metrics.segmentation import PerImageCounts
from siamtransfer.programs import detection, to_d2
from siamtransfer.utils.errors import UserError

SMALL = [
    "SCENES.TRAIN", "6", "SCENES.TEST", "3", "SCENES.SIZE", "48", "SOLVER.IMS_PER_BATCH", "2",
    "SOLVER.STEPS", "()", "INPUT.MASKS.CROP", "(33, 33)", "MODEL.DEVICE", "cpu",
]  # fmt: skip
WEIGHTS = "random:resnet18:width=8"


def measure(run: Path, *more: str, config: str = "scenes-fcn", weights: str = WEIGHTS) -> dict[str, Any]:
    options = ["--config", config, "--engine", "torchvision", "--weights", weights, "--run", str(run)]
    record = detection.main([*options, *SMALL, "SOLVER.MAX_ITER", "2", *more])
    assert record is not None
    return record


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The record and the folder of one training from converted weights, against others."""
    root = tmp_path_factory.mktemp("torchvision")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert, "is_installed", lambda: False)  # the numerical proof has tests of its own
        torch.save(random_state("resnet18", 8, seed=0), root / "a.pth")
        to_d2.main([str(root / "a.pth"), str(root / "a.pkl")])
    compare = ["--compare", "random:resnet18:width=8:seed=3"]
    return measure(root / "run", *compare, weights=str(root / "a.pkl")), root / "run"


def test_the_record_says_what_is_not_comparable(one: tuple[dict[str, Any], Path]) -> None:
    record, run = one
    assert record["task"] == "semantic-segmentation"
    protocol, metrics = record["protocol"], record["metrics"]
    assert (protocol["engine"], protocol["comparable"]) == ("torchvision", False)
    assert protocol["not_comparable"].startswith("torchvision's head is not that of the configuration")
    assert protocol["not_comparable"].endswith("MODEL.SEM_SEG_HEAD.DILATION, MODEL.SEM_SEG_HEAD.NUM_CONVS")
    assert protocol["settings"]["head"] == "fcn" and protocol["settings"]["MODEL.RESNETS.RES5_DILATION"] == 4
    assert metrics["semantic/mIoU/images_low"] <= metrics["semantic/mIoU/images_high"]
    low, high = (metrics[f"compare/semantic/mIoU/images_{end}"] for end in ("low", "high"))
    assert low <= metrics["compare/semantic/mIoU/difference"] <= high
    trial = run / "a" / "trial-0"
    with np.load(trial / "counts.npz") as arrays:
        counts = PerImageCounts.from_arrays(arrays)
    assert counts.areas()[2].sum() == 3 * 48 * 48 and 100 * counts.scores().miou == metrics["semantic/mIoU"]
    with Image.open(trial / "predictions.png") as picture:
        assert picture.width > 3 * 48 and picture.height > 3 * 48


def test_a_run_is_resumed_scored_again_and_kept_apart(one: tuple[dict[str, Any], Path]) -> None:
    record, run = one
    options = ["--compare", "random:resnet18:width=8:seed=3"]
    weights = str(run.parent / "a.pkl")
    for how in ("--resume", "--eval-only"):
        again = measure(run, *options, how, weights=weights)
        assert again["metrics"] == pytest.approx(record["metrics"], nan_ok=True, abs=0)
    with pytest.raises(UserError, match=r"has another configuration \(head 'fcn' -> 'deeplab'\)"):
        measure(run, *options, "--resume", "--head", "deeplab", weights=weights)


def test_trials_from_scratch_and_a_search(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    search = ["--search", "--lrs", "0.001", "0.1", "--held-out", "0.34", "--head", "deeplab"]
    record = measure(tmp_path / "run", "--compare", "scratch", "--trials", "2", *search)
    protocol = record["protocol"]
    assert set(protocol["chosen"]) == {"random-resnet18-width=8", "scratch"}
    assert protocol["chosen_on"].endswith("by semantic/mIoU") and protocol["settings"]["head"] == "deeplab"
    scratch = record["provenance"]["arms"][1]["trials"]
    assert scratch[0]["metrics"] != scratch[1]["metrics"], "each seed draws its own network"
    said = capsys.readouterr().err
    assert "not comparable with published numbers: torchvision's head is not that" in said
    assert "semantic/mIoU: random-resnet18-width=8 - scratch = " in said


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["MODEL.RESNETS.RES5_DILATION", "3"], "RES4_DILATION and RES5_DILATION are 2 and 3; take 1 and 1"),
        (["MODEL.SEM_SEG_HEAD.CONVS_DIM", "16"], "does not read MODEL.SEM_SEG_HEAD.CONVS_DIM; leave it out"),
        (["SOLVER.IMS_PER_BATCH", "7"], "6 images, less than SOLVER.IMS_PER_BATCH 7"),
        (["--config", "voc12-semantic-fpn"], "META_ARCHITECTURE is 'SemanticSegmentor'"),
        (["--weights", "random:vit_tiny_patch16_224"], "the segmentation here needs a ResNet"),
        (["--head", "deeplab", "--config", "scenes-fpn"], "is of semantic segmentation; leave it out"),
        (
            ["--config", "scenes-fpn", "MODEL.RESNETS.RES5_DILATION", "2"],
            "RES5_DILATION is 2, and torchvision",
        ),
        (["--metric", "coco"], "--metric coco is of objects"),
        (["INPUT.MASKS.CROP", "(64.5, 64)"], r"CROP is \(64\.5, 64\); give a height and a width"),
        (["SOLVER.WEIGHT_DECAY", "-1.0"], "WEIGHT_DECAY and WEIGHT_DECAY_NORM must be at least 0"),
        (["MODEL.DEVICE", "meta"], "'meta' is not supported"),
    ],
)
def test_refused_before_anything_is_written(tmp_path: Path, options: list[str], sentence: str) -> None:
    arguments = ["--weights", WEIGHTS, "--engine", "torchvision", "--run", str(tmp_path / "run")]
    base = [] if "--config" in options else ["--config", "scenes-fcn"]
    keys = ["SCENES.TRAIN", "6", "SCENES.TEST", "3", "SCENES.SIZE", "48", "SOLVER.IMS_PER_BATCH", "2"]
    data = ["--train", "fashion-scenes", "--test", "fashion-scenes"]
    with pytest.raises(UserError, match=sentence):
        detection.main([*arguments, *base, *data, *keys, *options])
    assert not (tmp_path / "run").exists()


@pytest.mark.detectron2
@pytest.mark.skipif(not is_installed(), reason="Detectron2 is not installed")
@pytest.mark.parametrize(
    ("config", "options", "sentence"),
    [
        ("scenes-fcn", ["MODEL.RESNETS.RES5_DILATION", "3"], "are 2 and 3; take 1 and 1, 1 and 2"),
        ("scenes-fpn", ["MODEL.RESNETS.RES5_DILATION", "2"], "has no such trunk; leave them out"),
        ("scenes-fpn", ["MODEL.RESNETS.CONTRACT_DILATION", "True"], "has no such trunk; leave them out"),
        ("scenes-fcn", ["MODEL.SEM_SEG_HEAD.AUX_IN_FEATURE", "res4"], "takes the feature res4 and MODEL"),
        ("scenes-fcn", ["INPUT.MASKS.SCALES", "(2.0, 0.5)"], r"INPUT\.MASKS\.SCALES is \(2\.0, 0\.5\)"),
        ("scenes-fcn", ["SOLVER.LR_SCHEDULER_NAME", "PolyLR", "SOLVER.POLY_END_LR", "0.5"], "POLY_END_LR 0"),
        ("scenes-fcn", ["--head", "deeplab"], "--head deeplab goes with --engine torchvision"),
    ],
)
def test_detectron2_refuses_before_anything_is_written(
    one: tuple[dict[str, Any], Path], tmp_path: Path, config: str, options: list[str], sentence: str
) -> None:
    weights = str(one[1].parent / "a.pkl")
    arguments = ["--config", config, "--weights", weights, "--run", str(tmp_path / "run")]
    keys = ["SCENES.TRAIN", "6", "SCENES.TEST", "3", "SCENES.SIZE", "48", "MODEL.DEVICE", "cpu"]
    with pytest.raises(UserError, match=sentence):
        detection.main([*arguments, *keys, *options])
    assert not (tmp_path / "run").exists()
