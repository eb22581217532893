"""eval/detection.py for instances of Cityscapes and for LVIS, from the command line to the record, with real
Detectron2 on the CPU, at tiny size."""

from __future__ import annotations

import os
import signal
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support.checkpoint_files import random_state

from siamtransfer.detection.detectron2 import convert
from siamtransfer.detection.detectron2.compat import is_installed
from siamtransfer.programs import detection, to_d2
from siamtransfer.training.journal_rows import read_rows
from siamtransfer.utils.errors import UserError

needs_cityscapes = pytest.mark.skipif(
    find_spec("cityscapesscripts") is None or find_spec("shapely") is None,
    reason="pip install 'siamtransfer[cityscapes]'",
)
needs_lvis = pytest.mark.skipif(find_spec("lvis") is None, reason="pip install --no-deps lvis")
pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.skipif(
        not is_installed(), reason="Detectron2 is not installed: python scripts/get_detectron2.py"
    ),
]
TINY = [
    "SCENES.TRAIN", "6", "SCENES.TEST", "3", "SCENES.SIZE", "64",
    "INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64",
    "DATALOADER.NUM_WORKERS", "0",
    "SOLVER.IMS_PER_BATCH", "2", "SOLVER.STEPS", "()", "SOLVER.WARMUP_ITERS", "1",
    "MODEL.FPN.OUT_CHANNELS", "16",
    "MODEL.ROI_BOX_HEAD.FC_DIM", "32",
    "MODEL.ROI_MASK_HEAD.CONV_DIM", "16",
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "8",
    "MODEL.RPN.POST_NMS_TOPK_TRAIN", "16", "MODEL.RPN.POST_NMS_TOPK_TEST", "8",
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0",
    "TEST.PRECISE_BN.NUM_ITER", "2",
]  # fmt: skip


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Narrow weights of a ResNet-18."""
    root = tmp_path_factory.mktemp("weights")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert, "is_installed", lambda: False)  # the numerical proof has tests of its own
        torch.save(random_state("resnet18", 8, "imagenet", seed=0), root / "a.pth")
        to_d2.main([str(root / "a.pth"), str(root / "a.pkl")])
    return root / "a.pkl"


def measure(weights: Path, config: str, run: Path, *more: str, steps: int = 2) -> dict[str, Any]:
    arguments = ["--config", config, "--weights", str(weights), "--run", str(run)]
    record = detection.main([*arguments, *TINY, "SOLVER.MAX_ITER", str(steps), *more])
    assert record is not None
    return record


@needs_cityscapes
def test_cityscapes_trains_and_scores(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = measure(weights, "scenes-cityscapes", tmp_path / "run")
    metrics, protocol = record["metrics"], record["protocol"]
    assert all(0 <= metrics[f"segmentation/{name}"] <= 100 for name in ("AP", "AP50"))
    assert sum(name.startswith("segmentation/AP/") for name in metrics) == 8
    assert "detection/AP" not in metrics, "the benchmark scores masks only"
    assert "cityscapesscripts" in protocol["metric"]
    assert protocol["settings"]["MODEL.ROI_HEADS.NUM_CLASSES"] == 8
    assert protocol["data"]["test"]["format"] == "cityscapes"
    trial = record["provenance"]["arms"][0]["trials"][0]
    assert trial["AP_by_step"] == [[2, metrics["segmentation/AP"]]]
    made = tmp_path / "run" / "a" / "trial-0"
    assert read_rows(made / "metrics.jsonl")[-2]["loss_mask"] > 0
    with Image.open(made / "predictions.png") as picture:
        assert picture.width > 2 * 64
    assert "Matching" not in capsys.readouterr().out, "standard output has the record only"
    again = measure(weights, "scenes-cityscapes", tmp_path / "run", "--eval-only")
    assert again["metrics"] == pytest.approx(metrics, nan_ok=True, abs=0)


@needs_lvis
def test_a_stopped_lvis_trial_goes_on_as_if_it_had_not_been(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images of rare classes come more often, and --resume ends in the weights of an undisturbed run."""
    whole = measure(weights, "scenes-lvis", tmp_path / "whole", steps=4)
    metrics, protocol = whole["metrics"], whole["protocol"]
    for task in ("detection", "segmentation"):
        assert {f"{task}/{name}" for name in ("AP", "AP50", "AP75", "APr", "APc", "APf")} <= set(metrics)
    assert 0 <= metrics["segmentation/AP"] <= 100
    assert protocol["settings"]["DATALOADER.SAMPLER_TRAIN"] == "RepeatFactorTrainingSampler"
    from detectron2.engine import SimpleTrainer

    real, steps = SimpleTrainer.run_step, list[int]()

    def run_step(self: Any) -> None:
        real(self)
        steps.append(len(steps))
        if len(steps) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(SimpleTrainer, "run_step", run_step)
    with pytest.raises(SystemExit) as stopped:
        measure(weights, "scenes-lvis", tmp_path / "run", steps=4)
    assert (stopped.value.code, len(steps)) == (143, 2)
    resumed = measure(weights, "scenes-lvis", tmp_path / "run", "--resume", steps=4)
    assert len(steps) == 4, "two steps were left"
    assert resumed["metrics"] == pytest.approx(metrics, nan_ok=True, abs=0)
    models = [
        torch.load(tmp_path / name / "a" / "trial-0" / "model_final.pth", weights_only=True)["model"]
        for name in ("whole", "run")
    ]
    assert all(torch.equal(value, models[1][name]) for name, value in models[0].items())


@needs_lvis
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--metric", "coco"], "--metric coco is of objects; leave it out, the score is that of LVIS"),
        (["MODEL.MASK_ON", "False"], "lvis scores masks; set MODEL.MASK_ON True"),
        (
            ["DATALOADER.SAMPLER_TRAIN", "RandomSubset"],
            "SAMPLER_TRAIN is 'RandomSubset'; take TrainingSampler or",
        ),
        (["--test", "lvis:x.json"], "lvis:x.json says nothing of its images"),
        (["--test", "cityscapes:val"], "cityscapes:val needs the folder .*--root"),
    ],
)
def test_refusals(weights: Path, tmp_path: Path, options: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        measure(weights, "scenes-lvis", tmp_path / "run", *options)
    assert not list((tmp_path / "run").rglob("result.json"))
