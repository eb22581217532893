"""Checkpoints in float16, bfloat16 and float64 go through every evaluator and converter, and give the numbers
of the same weights in float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support.checkpoint_files import own_checkpoint, random_state
from support.thorough import in_turn

from siamtransfer.checkpoints.read_backbone import read_backbone
from siamtransfer.data import open_images
from siamtransfer.programs import diagnose, fewshot, knn, linear, semisup, svm, to_d2, to_torchvision

TYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}
SCENES = ["--data.name", "fashion-scenes", "--data.size", "24", "--data.count", "100", "--device", "cpu"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options that name small scenes in folders, with a small test part."""
    root = tmp_path_factory.mktemp("scenes")
    for split, count in (("train", 100), ("test", 30)):
        images = open_images("fashion-scenes", split=split, size=24, count=count)
        assert images.labels is not None
        for index in range(count):
            folder = root / split / images.classes[images.labels[index]].replace("/", "-")
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images.image(index)).save(folder / f"{index}.png")
    return [
        "--data.name", "folder", "--data.root", str(root), "--crop", "24", "--resize", "24",
        "--cache", "none", "--device", "cpu", "--data.workers", "0",
    ]  # fmt: skip


def write(folder: Path, dtype: torch.dtype) -> Path:
    """A checkpoint in `dtype` whose values are those of float16, so that every type but bfloat16 holds
    them."""
    state = random_state("resnet18", 8, "small")
    state = {
        key: value.to(torch.bfloat16).to(torch.float16).to(dtype) if value.is_floating_point() else value
        for key, value in state.items()
    }
    path = folder / f"{dtype}.pth"
    content = own_checkpoint(state, "resnet18", 8, "small")
    torch.save(content | {"method": "another"}, path)  # whose projector is not known
    return path


PROGRAMS: dict[str, tuple[Callable[..., Any], list[str]]] = {
    "knn": (knn.main, ["--k", "5"]),
    "logistic": (linear.main, ["--strengths", "1"]),
    "sweep": (linear.main, ["--protocol", "sweep", "--lrs", "0.1", "--epochs", "1"]),
    "augmented sweep": (
        linear.main,
        ["--protocol", "sweep", "--augment", "--lrs", "0.1", "--epochs", "1", "--batch-size", "40"],
    ),
    "moco": (linear.main, ["--protocol", "moco", "--epochs", "1", "--batch-size", "50"]),
    "simsiam": (linear.main, ["--protocol", "simsiam", "--epochs", "1", "--batch-size", "50"]),
    "fewshot": (fewshot.main, ["--shots", "1", "--repeats", "2"]),
    "semisup": (
        semisup.main,
        ["--percent", "40", "--lrs", "0.01", "0.2", "--epochs", "1", "--batch-size", "10"],
    ),
    "svm": (svm.main, ["--one-hot", "--costs", "1", "--protocol", "swav", "--jobs", "1"]),
    "diagnose": (diagnose.main, ["--restarts", "1", "--images", "10", "--views", "2"]),
}  # fmt: skip


@pytest.mark.parametrize(("name", "dtype"), in_turn(PROGRAMS, TYPES))
def test_every_evaluator_gives_the_numbers_of_float32(
    name: str, dtype: str, scenes: list[str], tmp_path: Path
) -> None:
    program, options = PROGRAMS[name]
    in_float32, found = (
        program([str(write(tmp_path, of)), *scenes, *options])["metrics"]
        for of in (torch.float32, TYPES[dtype])
    )
    assert found == in_float32


@pytest.mark.parametrize("dtype", TYPES)
def test_the_converters_keep_the_weights(dtype: str, tmp_path: Path) -> None:
    state = random_state("resnet18", 16)
    state = {
        key: value.to(TYPES[dtype]) if value.is_floating_point() else value for key, value in state.items()
    }
    path = tmp_path / "checkpoint.pth"
    torch.save(own_checkpoint(state, "resnet18", 16, "imagenet"), path)
    to_torchvision.main([str(path), str(tmp_path / "out.pth")])
    to_d2.main([str(path), str(tmp_path / "out.pkl")])
    for name in ("out.pth", "out.pkl"):
        written = read_backbone(tmp_path / name).state
        assert all(
            torch.equal(written[key].float(), value.float())
            for key, value in state.items()
            if value.is_floating_point()
        ), name
