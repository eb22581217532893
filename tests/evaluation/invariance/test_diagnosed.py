"""The invariance that `diagnose` measures beside its own numbers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.diagnoses import RANDOM, score
from support.pictures import write_parts

from siamtransfer.data.imageset import ArrayImages
from siamtransfer.evaluation.diagnostics.config import DiagnoseConfig
from siamtransfer.evaluation.diagnostics.model_features import _require_same_images
from siamtransfer.evaluation.invariance.strengths import SCALES
from siamtransfer.programs.invariance import main as invariance
from siamtransfer.utils.errors import UserError

PIXELS = np.zeros((2, 4, 4, 3), np.uint8)


def test_invariance_is_that_of_its_own_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some = {name: SCALES[name] for name in ("rotation", "grey")}
    monkeypatch.setattr("siamtransfer.evaluation.invariance.config.SCALES", some)
    write_parts(tmp_path / "set")
    images = [
        "--data.name=folder",
        f"--data.root={tmp_path / 'set'}",
        "--crop=16",
        "--resize=18",
        "--cache=none",
        "--data.few=12",
    ]
    networks = [f"{RANDOM}:seed={seed}" for seed in (1, 2)]
    both = score(*networks, *images, "--invariance", "--seed=3")
    alone = invariance([networks[1], *images, "--device=cpu", "--seed=3"])
    assert alone is not None
    shared = {f"2/{name}": value for name, value in alone["metrics"].items()}
    assert len(shared) > 100
    assert {name: both["metrics"][name] for name in shared} == pytest.approx(shared, abs=1e-9)
    assert both["metrics"]["1/invariance/mean/relative"] != both["metrics"]["2/invariance/mean/relative"]
    for key in ("strengths", "test_images", "bank_images", "k"):
        assert both["protocol"]["invariance"][key] == alone["protocol"][key]
    (remark,) = (remark for remark in alone["protocol"]["remarks"] if "--k 20" in remark)
    for one in both["protocol"]["checkpoints"]:
        assert remark in one["remarks"]
    assert "remarks" not in both["protocol"]["invariance"]  # of other weights there are others


def test_both_parts_have_to_be_the_same_images() -> None:
    def model(source: str, test: str | None) -> Any:
        other = test and ArrayImages(test, "test", PIXELS + len(test))
        return SimpleNamespace(source=source, train=ArrayImages("x", "train", PIXELS), test=other)

    for others in (["a", "bb"], ["a", None]):
        models = [model(f"{n}.pth", name) for n, name in enumerate(others)]
        _require_same_images(models, DiagnoseConfig())
        with pytest.raises(UserError, match=r"0\.pth .* of a/test and 1\.pth .*--data\.test-split"):
            _require_same_images(models, DiagnoseConfig(invariance=True))
