"""`siamtransfer segmentation`: what it scores, writes, compares and refuses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from siamtransfer.programs.segmentation import main
from siamtransfer.records.comparison import compare
from siamtransfer.utils.errors import UserError

RESNET, VIT = "random:resnet18:width=8:stem=small", "random:vit_tiny_patch16_224"
SCENES = ["--data.name=fashion-scenes", "--data.size=64", "--data.count=30", "--data.test-count=12"]
OPTIONS = ["--device=cpu", "--precision=float32", "--layers=layer3", "--restarts=1", "--strengths=0.01"]


def score(*words: str) -> dict[str, Any]:
    record: dict[str, Any] | None = main([*words])
    assert record is not None
    return record


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder and the record of a ResNet on scenes with all probes."""
    folder = tmp_path_factory.mktemp("scored")
    words = [f"--record={folder / 'a.json'}", f"--pictures={folder / 'grid.png'}", "--picture-count=2"]
    return folder, score(RESNET, *SCENES, *OPTIONS, *words)


def test_all_probes_are_scored_at_the_size_of_the_masks(scored: tuple[Path, dict[str, Any]]) -> None:
    metrics, protocol = scored[1]["metrics"], scored[1]["protocol"]
    for name in ("linear", "knn/k=30", "kmeans", "ceiling"):
        assert metrics[f"{name}/miou/ci95_low"] < metrics[f"{name}/miou"] < metrics[f"{name}/miou/ci95_high"]
        classes = [value for key, value in metrics.items() if key.startswith(f"{name}/iou/")]
        assert np.mean(classes) == pytest.approx(metrics[f"{name}/miou"])
        assert 0 < metrics[f"{name}/miou"] <= metrics["ceiling/miou"] < 100
    assert set(protocol["settings"]) == {"linear", "knn/k=30", "kmeans", "ceiling"}
    assert protocol["input"] == {
        "side": 64,
        "resize": "square",
        "interpolation": "bilinear, antialiased",
        "view": "whole image",
    }
    assert protocol["scored_at"] == "original size of the masks"
    assert (protocol["train_images"], protocol["test_images"]) == (30, 12)
    assert scored[1]["provenance"]["layers"] == ["layer3"]


def test_the_picture_has_a_row_for_each_image_and_colours_of_classes(
    scored: tuple[Path, dict[str, Any]],
) -> None:
    picture = np.asarray(Image.open(scored[0] / "grid.png"))
    assert picture.shape[0] > 2 * 144 and picture.shape[1] > 5 * 144
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20


def test_compare_takes_two_backbones_image_by_image(
    scored: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    pixels = tmp_path / "pixels.json"
    words = ["--pixel-patch=4", f"--record={pixels}", "--restarts=1", "--strengths=0.01"]
    record = score("pixels", *SCENES, "--device=cpu", "--precision=float32", *words)
    found = compare(scored[0] / "a.json", pixels, setting="linear")
    difference = found.differences["miou"]
    assert difference.low < difference.high
    assert difference.first == pytest.approx(scored[1]["metrics"]["linear/miou"])
    assert difference.second == pytest.approx(record["metrics"]["linear/miou"])


def test_the_number_of_images_at_once_changes_little(scored: tuple[Path, dict[str, Any]]) -> None:
    again = score(RESNET, *SCENES, *OPTIONS, "--probe=linear", "--forward-batch-size=5")
    for name, value in again["metrics"].items():
        assert value == pytest.approx(scored[1]["metrics"][name], abs=0.05)


def test_a_vit_of_images_of_other_sizes_scores_own_masks(tmp_path: Path) -> None:
    """Left half of class a, right half of class b, with an ignored margin: colours tell them apart."""
    draw = np.random.default_rng(0)
    for split, count in {"train": 6, "val": 3}.items():
        for kind in ("images", "masks"):
            (tmp_path / kind / split).mkdir(parents=True)
        for number in range(count):
            height, width = 48 + 8 * number, 64
            image = draw.integers(0, 60, (height, width, 3), np.uint8)
            image[:, width // 2 :] += 180
            mask = np.zeros((height, width), np.uint8)
            mask[:, width // 2 :], mask[:2] = 1, 255
            Image.fromarray(image).save(tmp_path / "images" / split / f"{number}.png")
            Image.fromarray(mask).save(tmp_path / "masks" / split / f"{number}.png")
    (tmp_path / "classes.txt").write_text("a\nb\n")
    own = ["--data.name=masks", f"--data.root={tmp_path}", f"--data.classes={tmp_path / 'classes.txt'}"]
    small = ["--size=64", "--resize=shorter", "--layers=block2", "--probe=linear", "--device=cpu"]
    metrics = score(VIT, *own, *small, "--precision=float32")["metrics"]
    assert metrics["linear/miou"] > 90
    assert metrics["ceiling/miou"] > 95


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([RESNET], "--data.name"),
        (["--data.name=fashion-scenes"], "give a checkpoint"),
        ([RESNET, *SCENES, "--layers=block3"], "no map of a layer 'block3'"),
        (["pixels", *SCENES, "--layers=layer3"], "raw pixels have no layer"),
        ([RESNET, *SCENES, "--memory-budget=0.000001"], "--memory-budget 1e-06 GiB does not hold"),
        ([RESNET, *SCENES, "--held-out=1"], "--held-out is 1"),
        ([RESNET, *SCENES, "--pictures=grid.jpg"], "must end in .png"),
        ([RESNET, "--data.name=fashion-scene"], "did you mean fashion-scenes"),
        (["pixels", *SCENES, "--probe=linear", "--patches-per-image=1", "--k=0"], "--k at least 1"),
        ([RESNET, *SCENES[:2], "--data.count=1", "--probe=linear"], "train has one image"),
    ],
)
def test_it_refuses_in_a_sentence(words: Sequence[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        main([*words, "--device=cpu"])


def test_nothing_is_written_when_the_picture_cannot_be(tmp_path: Path) -> None:
    record = tmp_path / "out.json"
    words = [f"--record={record}", f"--pictures={tmp_path / 'file' / 'grid.png'}", "--probe=linear"]
    (tmp_path / "file").touch()
    with pytest.raises(UserError):
        main(["pixels", *SCENES, "--device=cpu", "--strengths=0.01", *words])
    assert not record.exists() and not record.with_suffix(".npz").exists()


def test_the_record_is_the_file(scored: tuple[Path, dict[str, Any]]) -> None:
    assert json.loads((scored[0] / "a.json").read_text())["metrics"] == scored[1]["metrics"]
