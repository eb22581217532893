"""What an evaluator does with a file that leaves open how it is to be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.checkpoint_files import own_checkpoint, random_state

import siamtransfer as st
from siamtransfer.checkpoints.read_backbone import read_backbone
from siamtransfer.evaluation.api import extract_features
from siamtransfer.evaluation.sklearn import BackboneFeatures
from siamtransfer.programs.compare import main as compare
from siamtransfer.programs.diagnose import main as diagnose
from siamtransfer.programs.knn import main as knn
from siamtransfer.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("few_test_scenes")

SCENES = ["--data.name", "fashion-scenes", "--data.size", "24", "--data.count", "60", "--device", "cpu"]


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A bottleneck network under torchvision's names, of which nothing says how it is to be read."""
    torch.save(random_state("resnet50", 4), tmp_path / "plain.pth")
    return tmp_path / "plain.pth"


def score(*words: object) -> dict[str, Any]:
    record = knn([*map(str, words), *SCENES, "--k", "5"])
    assert record is not None
    return record


def test_assumptions_are_printed_once_and_recorded(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = score(plain)["provenance"]
    said = capsys.readouterr().err
    assert len(facts["assumptions"]) == 1
    assert said.count(f"note: {plain}: {facts['assumptions'][0]}") == 1
    assert facts["reading"]["normalisation"]["source"] == "assumed"
    assert set(facts["witness"]) >= {"best", "factor", "unlikely"}
    known = own_checkpoint(random_state("resnet18", 4), "resnet18", 4, "imagenet")
    torch.save(known, tmp_path / "own.pth")
    facts = score(tmp_path / "own.pth")["provenance"]
    assert facts["assumptions"] == []
    assert "note:" not in capsys.readouterr().err


def test_flags_move_the_numbers_and_not_the_cache_of_another_reading(plain: Path) -> None:
    records = [score(plain), score(plain, "--stride-in-1x1"), score(plain, "--output-stride", 8)]
    assert len({json.dumps(record["metrics"]) for record in records}) == 3
    assert [record["provenance"]["architecture"].get("stride_in_1x1") for record in records] == [
        None,
        True,
        None,
    ]
    assert score(plain)["metrics"] == records[0]["metrics"]


def test_two_readings_of_one_file_can_be_compared(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """How a file is read belongs to the weights, as its normalisation does."""
    for name, words in (("a", []), ("b", ["--normalisation", "half", "--stride-in-1x1"])):
        score(plain, *words, "--record", tmp_path / f"{name}.json")
    record = compare([str(tmp_path / "a.json"), str(tmp_path / "b.json")])
    readings = [record["provenance"][side]["reading"] for side in ("first", "second")]
    assert [reading["stride_in_1x1"]["value"] for reading in readings] == [False, True]
    said = capsys.readouterr().err
    assert "note: A: assumed" in said
    assert "note: B: assumed" in said


@pytest.mark.parametrize("flag", [["--heads", "12"], ["--no-stride-in-1x1"], ["--normalisation", "half"]])
def test_flags_of_a_reading_without_a_file_are_refused(flag: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="raw pixels have none"):
        knn(["pixels", *SCENES, *flag])
    np.savez(tmp_path / "f.npz", features=np.eye(4, dtype=np.float32), labels=np.arange(4))
    files = ["--train-features", str(tmp_path / "f.npz"), "--test-features", str(tmp_path / "f.npz")]
    with pytest.raises(UserError, match="feature files have none"):
        diagnose([*files, *flag])


def test_the_functions_take_what_the_flags_say(plain: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 24, 24, 3), dtype=np.uint8)
    backbone = st.load_backbone(plain, stride_in_1x1=True, normalisation="half")
    assert backbone.source.reading.stride_in_1x1.source == "--stride-in-1x1"
    h = extract_features(backbone, images, device="cpu").tensor
    other = extract_features(st.load_backbone(plain, normalisation="half"), images, device="cpu").tensor
    assert not torch.allclose(h, other)
    transformer = BackboneFeatures(
        str(plain), stride_in_1x1=True, normalisation="half", crop=24, device="cpu"
    )
    assert np.allclose(transformer.fit().transform(images), h, rtol=1e-4, atol=1e-3)
    with pytest.raises(UserError, match="another normalisation"):
        extract_features(backbone, images, device="cpu", normalisation="imagenet")
    st.to_torchvision(backbone, tmp_path / "out.pth")
    assert read_backbone(tmp_path / "out.pth").architecture == backbone.source.architecture


def test_a_module_of_ones_own_may_say_its_normalisation() -> None:
    module = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    images = np.full((2, 24, 24, 3), 255, dtype=np.uint8)
    features = extract_features(module, images, device="cpu", normalisation="half")
    assert torch.allclose(features.tensor, torch.ones(2, 3), atol=1e-5)
    assert features.origin is not None
    assert features.origin.backbone["assumptions"] == []
    assert extract_features(module, images, device="cpu").origin.backbone["assumptions"]  # type: ignore[union-attr]
