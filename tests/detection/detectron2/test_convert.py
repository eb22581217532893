"""Conversions as functions: what they return, and what they write."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.checkpoint_files import random_state

from siamtransfer.checkpoints.read_backbone import read_backbone
from siamtransfer.checkpoints.to_torchvision import to_torchvision
from siamtransfer.detection.detectron2 import convert
from siamtransfer.utils.errors import UserError


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The numerical proof has tests of its own."""
    monkeypatch.setattr(convert, "is_installed", lambda: False)
    torch.save(random_state("resnet18", 8), tmp_path / "checkpoint.pth")
    return tmp_path / "checkpoint.pth"


def test_there_and_back(checkpoint: Path, tmp_path: Path) -> None:
    there = convert.to_detectron2(checkpoint, tmp_path / "out.pkl")
    assert there.paths == (tmp_path / "out.pkl", tmp_path / "out.yaml")
    assert there.metrics["tensors"] == 120
    assert there.protocol["proof"] == "not run: Detectron2 is not installed"
    back = to_torchvision(str(tmp_path / "out.pkl"), str(tmp_path / "back.pth"))
    assert back.paths == (tmp_path / "back.pth", tmp_path / "back.json")
    assert back.metrics == there.metrics
    digest = read_backbone(checkpoint).digest
    assert there.provenance["weights_digest"] == back.provenance["weights_digest"] == digest


def test_a_dry_run_returns_the_same_numbers_and_no_paths(checkpoint: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    there = convert.to_detectron2(checkpoint, tmp_path / "out.pkl", dry_run=True)
    back = to_torchvision(checkpoint, tmp_path / "back.pth", dry_run=True)
    assert there.metrics == back.metrics
    assert (there.paths, back.paths) == ((), ())
    assert (there.provenance["out"], back.provenance["out"]) == (None, None)
    assert sorted(tmp_path.iterdir()) == before


def test_existing_files_are_replaced_with_force_only(checkpoint: Path, tmp_path: Path) -> None:
    for out in (tmp_path / "out.pkl", tmp_path / "out.pth"):
        out.write_bytes(b"old")
        function = convert.to_detectron2 if out.suffix == ".pkl" else to_torchvision
        with pytest.raises(UserError, match="exists"):
            function(checkpoint, out)
        assert out.read_bytes() == b"old"
        function(checkpoint, out, force=True)
        assert read_backbone(out).digest == read_backbone(checkpoint).digest
