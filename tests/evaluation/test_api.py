"""The evaluators as functions: the numbers and the provenance of the programs, from features in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import TensorDataset

from siamtransfer.checkpoints.read_backbone import digest_of, load_backbone
from siamtransfer.data import open_images, open_labelled
from siamtransfer.evaluation.api import diagnose, extract_features, knn, linear_probe
from siamtransfer.features.extract import Features
from siamtransfer.programs.diagnose import main as diagnose_program
from siamtransfer.programs.knn import main as knn_program
from siamtransfer.programs.linear import main as linear_program
from siamtransfer.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("few_test_scenes")

SOURCE = "random:resnet18:width=8:stem=small"
SCENES: dict[str, Any] = {"size": 24, "count": 60}
OPTIONS = [
    SOURCE, "--data.name", "fashion-scenes", "--data.size", "24", "--data.count", "60", "--device", "cpu",
    "--cache", "none",
]  # fmt: skip


@pytest.fixture(scope="module")
def features() -> tuple[Features, Features]:
    train, test = open_labelled("fashion-scenes", **SCENES)
    assert test is not None
    return extract_features(SOURCE, train, device="cpu"), extract_features(SOURCE, test, device="cpu")


def record_of(program: Any, *words: str) -> dict[str, Any]:
    record: dict[str, Any] = program([*OPTIONS, *words])
    return record


def same_origin(result: dict[str, Any], record: dict[str, Any]) -> None:
    assert result["task"] == record["task"]
    assert result["metrics"] == record["metrics"]
    assert result["protocol"] == record["protocol"]
    # Features in memory name no class, and computing them cost something before.
    moving = {"time", "command", "commit", "cost", "classes", "class_count"}
    old, new = record["provenance"], result["provenance"]
    assert {key: old[key] for key in old.keys() - moving} == {key: new[key] for key in new.keys() - moving}


def test_knn_is_the_programs(features: tuple[Features, Features]) -> None:
    result = knn(*features, k=[5, 20], temperature=0.07, device="cpu")
    record = record_of(knn_program, "--k", "5", "20", "--no-baselines")
    same_origin(result.record(), record)
    assert result.predictions is not None
    assert set(result.predictions.settings) == {"k=5/T=0.07", "k=20/T=0.07"}
    assert "knn/k=20/T=0.07/top1" in str(result)


def test_the_linear_probe_is_the_programs(features: tuple[Features, Features]) -> None:
    result = linear_probe(*features, strengths=[0.1, 10.0], device="cpu")
    assert result.protocol["strengths"] == [0.1, 10.0]
    same_origin(result.record(), record_of(linear_program, "--strengths", "0.1", "10"))


def test_a_sweep_needs_features_only(features: tuple[Features, Features]) -> None:
    result = linear_probe(*features, protocol="sweep", lrs=[0.1, 1.0], device="cpu")
    assert result.protocol["protocol"] == "sweep"
    assert "linear/top1" in result.metrics
    with pytest.raises(UserError, match="siamtransfer linear"):
        linear_probe(*features, protocol="moco", device="cpu")  # type: ignore[arg-type]


def test_diagnose_is_the_programs_without_views(features: tuple[Features, Features]) -> None:
    result = diagnose(features[0], restarts=2, device="cpu")
    record = record_of(diagnose_program, "--images", "0", "--restarts", "2")
    expected = {name: value for name, value in record["metrics"].items() if name.endswith("/backbone")}
    assert result.metrics == pytest.approx(expected, rel=1e-6)
    assert (
        result.provenance["checkpoints"][0]["weights_digest"]
        == record["provenance"]["checkpoints"][0]["weights_digest"]
    )


def test_without_a_test_split_each_image_is_scored_against_the_others(
    features: tuple[Features, Features],
) -> None:
    result = knn(features[0], k=5, device="cpu")
    assert result.protocol["test"] == "leave-one-out on train"
    assert result.provenance["test_fingerprint"] is None


def test_features_may_be_arrays() -> None:
    generator = np.random.default_rng(0)
    h, y = generator.normal(size=(40, 6)), np.arange(40) % 3
    result = knn((h, y), (h[:10], y[:10]), k=1, device="cpu")
    assert result.metrics["knn/k=1/T=0.07/top1"] == 100
    assert set(result.provenance) == {"train_digest", "test_digest", "cost"}
    assert "std/backbone" in diagnose((h, y), restarts=0, device="cpu").metrics
    with pytest.raises(UserError, match="do not go together"):
        knn((h, y[:5]), k=1)


def test_images_may_be_a_list_an_array_or_a_dataset() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 24, 24, 3), dtype=np.uint8)
    pictures = [Image.fromarray(image) for image in pixels]
    dataset = TensorDataset(torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.arange(6))
    h = [extract_features(SOURCE, images, device="cpu").tensor for images in (pixels, pictures, dataset)]
    assert torch.equal(h[0], h[1])
    assert torch.equal(h[0], h[2])
    with pytest.raises(UserError, match="images are of type int"):
        extract_features(SOURCE, 3, device="cpu")  # type: ignore[arg-type]


def test_a_module_of_ones_own(features: tuple[Features, Features]) -> None:
    images = open_images("fashion-scenes", split="train", **SCENES)

    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean(dim=(2, 3)) * self.scale

    module = Mean()
    found = extract_features(module, images, device="cpu", precision="float32")
    assert found.tensor.shape == (60, 3)
    assert found.origin is not None
    assert found.origin.backbone["weights_digest"] == digest_of(module.state_dict())
    with pytest.raises(UserError, match="no layer 'layer2'"):
        extract_features(module, images, layers="layer2", device="cpu")
    with pytest.raises(UserError, match="not of one backbone"):
        knn(found, features[1], k=1, device="cpu")


def test_changed_weights_have_their_own_digest(features: tuple[Features, Features]) -> None:
    images = open_images("fashion-scenes", split="train", **SCENES)
    backbone, read = load_backbone(SOURCE)
    before = extract_features((backbone, read), images, device="cpu")
    assert before.origin == features[0].origin
    assert torch.equal(before.tensor, features[0].tensor)
    with torch.no_grad():
        next(backbone.parameters()).mul_(2)
    after = extract_features((backbone, read), images, device="cpu")
    with pytest.raises(UserError, match="different weights"):
        knn(before, after, k=1, device="cpu")


def test_train_and_test_are_extracted_alike(features: tuple[Features, Features]) -> None:
    images = open_images("fashion-scenes", split="test", **SCENES)
    smaller = extract_features(SOURCE, images, crop=16, device="cpu")
    with pytest.raises(UserError, match="extracted differently"):
        knn(features[0], smaller, k=1, device="cpu")


def test_a_result_is_saved_like_a_programs_record(
    features: tuple[Features, Features], tmp_path: Path
) -> None:
    knn(*features, k=5, device="cpu").save(tmp_path / "knn.json")
    assert (tmp_path / "knn.npz").is_file()
