"""eval/detection.py on a network of timm with both engines, from the command line to the record."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from support.checkpoint_files import timm_file

from siamtransfer.checkpoints.read_backbone import read_backbone
from siamtransfer.detection.detectron2 import convert
from siamtransfer.detection.detectron2.compat import is_installed
from siamtransfer.detection.torchvision.training import TransferTraining
from siamtransfer.programs import detection, to_d2

SMALL = [
    "SCENES.TRAIN", "8", "SCENES.TEST", "3", "SCENES.SIZE", "64", "MODEL.DEVICE", "cpu",
    "INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64", "SOLVER.IMS_PER_BATCH", "2",
    "SOLVER.STEPS", "()", "SOLVER.WARMUP_ITERS", "1", "MODEL.FPN.OUT_CHANNELS", "16",
    "MODEL.ROI_BOX_HEAD.FC_DIM", "32", "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "8",
    "TEST.PRECISE_BN.NUM_ITER", "2", "MODEL.TIMM.DROP_PATH", "0.1",
]  # fmt: skip


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("timm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert, "is_installed", lambda: False)  # the numerical proof has tests of its own
        to_d2.main([str(timm_file(folder, "timm:test_convnext")), str(folder / "a.pkl")])
    return folder / "a.pkl"


def measure(weights: Path | str, run: Path, *more: str, engine: str) -> dict[str, Any]:
    options = ["--config", "scenes-fpn", "--engine", engine, "--weights", str(weights), "--run", str(run)]
    record = detection.main([*options, *SMALL, "SOLVER.MAX_ITER", "4", *more])
    assert record is not None
    return record


def stop_after_two_steps(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[int]:
    """Sends SIGTERM in the second call; returns the list of calls."""
    real: Any = getattr(owner, name)
    steps: list[int] = []

    def step(*arguments: Any) -> Any:
        result = real(*arguments)
        steps.append(len(steps))
        if len(steps) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return result

    monkeypatch.setattr(owner, name, step)
    return steps


@pytest.mark.detectron2
@pytest.mark.skipif(
    not is_installed(), reason="Detectron2 is not installed: python scripts/get_detectron2.py"
)
def test_detectron2_trains_stops_resumes_and_scores(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from siamtransfer.detection.detectron2.compat import import_detectron2

    import_detectron2()
    from detectron2.engine import SimpleTrainer

    whole = measure(weights, tmp_path / "whole", engine="detectron2")
    settings = whole["protocol"]["settings"]
    assert settings["MODEL.TIMM.NAME"] == "timm:test_convnext" and settings["MODEL.TIMM.MAP_NORM"] == "LN"
    trial = whole["provenance"]["arms"][0]["trials"][0]
    assert trial["tensors_proved"] == len(read_backbone(weights).state)
    assert {"detection/AP", "segmentation/AP"} <= whole["metrics"].keys()
    again = measure(weights, tmp_path / "whole", "--eval-only", engine="detectron2")
    assert again["metrics"] == pytest.approx(whole["metrics"], nan_ok=True)

    steps = stop_after_two_steps(monkeypatch, SimpleTrainer, "run_step")
    with pytest.raises(SystemExit) as stopped:
        measure(weights, tmp_path / "run", engine="detectron2")
    assert (stopped.value.code, len(steps)) == (143, 2)
    resumed = measure(weights, tmp_path / "run", "--resume", engine="detectron2")
    assert len(steps) == 4 and resumed["metrics"] == pytest.approx(whole["metrics"], nan_ok=True)
    first, second = (
        torch.load(tmp_path / name / "a" / "trial-0" / "model_final.pth", weights_only=True)["model"]
        for name in ("whole", "run")
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    start = read_backbone(weights).state
    prefix = "backbone.bottom_up.pyramid.bottom_up."
    resting = {name for name, value in start.items() if torch.equal(value, first[prefix + name])}
    assert resting == {"head.norm.weight", "head.norm.bias"}  # no map is made of them
    norms = [value for name, value in first.items() if ".norms." in name and name.endswith("weight")]
    assert len(norms) == 4 and not any(torch.equal(norm, torch.ones_like(norm)) for norm in norms)


def test_torchvision_trains_stops_resumes_and_scores(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = measure(weights, tmp_path / "whole", "--compare", "scratch", engine="torchvision")
    assert [arm["name"] for arm in whole["provenance"]["arms"]] == ["a", "scratch"]
    assert {"detection/AP", "segmentation/AP", "compare/detection/AP/difference"} <= whole["metrics"].keys()

    first = resumed_as_whole(weights, tmp_path, monkeypatch)
    start = read_backbone(weights).state
    prefix = "backbone.body.bottom_up."
    moved = {name for name, value in start.items() if not torch.equal(value, first[prefix + name])}
    assert moved == start.keys() - {"head.norm.weight", "head.norm.bias"}


def resumed_as_whole(
    weights: Path | str, folder: Path, monkeypatch: pytest.MonkeyPatch, *more: str
) -> dict[str, Any]:
    """The model of folder/whole, after a run that stops and resumes has ended in it to the bit."""
    steps = stop_after_two_steps(monkeypatch, TransferTraining, "step")
    with pytest.raises(SystemExit) as stopped:
        measure(weights, folder / "run", *more, engine="torchvision")
    assert stopped.value.code == 143 and len(steps) < 4
    measure(weights, folder / "run", "--resume", *more, engine="torchvision")
    assert len(steps) == 4
    first, second = (
        torch.load(next((folder / name).glob("*/trial-0/detector.pth")), weights_only=True)["model"]
        for name in ("run", "whole")
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    return second


def test_a_plain_vit_stops_and_resumes_in_torchvision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With stochastic depth, rates by layer and AdamW, whose moments have to come back too."""
    source, small = "random:timm:test_vit4", ["--config", "scenes-vit-fpn", "MODEL.MASK_ON", "False"]
    measure(source, tmp_path / "whole", *small, engine="torchvision")
    trained = resumed_as_whole(source, tmp_path, monkeypatch, *small)
    relative = [value for name, value in trained.items() if ".relative." in name]
    assert relative and all(bool(value.any()) for value in relative)  # they begin at zero
    assert not torch.equal(
        trained["backbone.body.bottom_up.pos_embed"], read_backbone(source).state["pos_embed"]
    )
