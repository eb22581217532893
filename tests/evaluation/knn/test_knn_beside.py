"""Small sets: more neighbours than there are, and what a checkpoint's number is held against."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from siamtransfer.evaluation.api import knn
from siamtransfer.evaluation.fewshot.evaluate import possible_shots
from siamtransfer.evaluation.knn.baselines import guessing, only_one_right
from siamtransfer.evaluation.knn.evaluate import possible_ks
from siamtransfer.evaluation.knn.verdict import interval_of_difference, remark_on_pixels
from siamtransfer.features.extract import Features
from siamtransfer.pretraining.monitors import KnnMonitor
from siamtransfer.programs.knn import main
from siamtransfer.utils.errors import UserError

NAME = "knn/k=20/T=0.07/top1"


def test_more_neighbours_than_there_are_become_those_that_there_are() -> None:
    assert possible_ks([10, 20, 100, 200], 39)[0] == [10, 20, 39]
    assert possible_ks([10, 39], 39) == ([10, 39], [])
    (remark,) = possible_ks([10, 100, 200], 39)[1]
    assert remark.startswith("--k 100, 200 is more than the 39 neighbours that an image has")
    with pytest.raises(UserError, match="single image"):
        possible_ks([1], 0)


def test_the_largest_k_is_all_others() -> None:
    labels = torch.tensor([0, 0, 0, 1, 1])
    features = Features(torch.eye(5), labels)
    result = knn(features, k=[2, 9], device="cpu")
    assert result.protocol["k"] == [2, 4]
    assert "knn/k=4/T=0.07/top1" in result.metrics
    assert any("4 vote instead" in remark for remark in result.protocol["remarks"])


def test_small_sets_of_ones_own_have_baselines_beside_the_number(
    shapes_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--data.name=folder", f"--data.root={shapes_folder}", "--device=cpu", "--data.workers=0"]
    options += ["--crop=16", "--cache=none", "--k", "20", "200"]
    words = ["random:resnet18:width=8", *options]
    record = main(words)
    assert record is not None
    metrics = record["metrics"]
    assert (metrics["baseline/chance/top1"], metrics["baseline/majority/top1"]) == (50.0, 50.0)
    pixels = main(["pixels", *options])
    assert pixels is not None
    assert metrics[f"baseline/pixels/{NAME}"] == pixels["metrics"][NAME] > 90, (
        "a bright half is seen in pixels"
    )
    assert not any("untrained" in name for name in metrics), "the checkpoint is untrained itself"
    assert record["protocol"]["k"] == [20, 39]
    assert any("does not beat raw pixels" in remark for remark in record["protocol"]["remarks"])
    assert "does not beat raw pixels" in capsys.readouterr().err
    without = main([*words, "--no-baselines"])
    assert without is not None
    assert not any(name.startswith("baseline/") for name in without["metrics"])
    assert without["metrics"].items() <= metrics.items()


def test_shots_that_the_smallest_class_does_not_have_are_left_out() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1, 1])
    assert possible_shots([1, 3], labels) == ([1, 3], [])
    assert possible_shots([1, 2, 5, 10], labels) == (
        [1, 2],
        ["--shots 5, 10 is left out, for the smallest class has 3 images"],
    )
    with pytest.raises(UserError, match="class 0 has 3 images, and 4 of each"):
        possible_shots([4, 5], labels)


def test_baselines_of_feature_files_are_refused(tmp_path: Path) -> None:
    for name in ("train", "test"):
        np.savez(tmp_path / f"{name}.npz", features=np.eye(4, dtype=np.float32), labels=np.arange(4) % 2)
    files = [f"--{name}-features={tmp_path / name}.npz" for name in ("train", "test")]
    with pytest.raises(UserError, match="--baselines needs images"):
        main([*files, "--k=1", "--baselines"])


def test_guesses_and_differences() -> None:
    train, test = torch.tensor([3, 3, 3, 7, 7, 9]), torch.tensor([3, 7, 7, 7])
    assert guessing(train, test) == {
        "baseline/chance/top1": pytest.approx(100 / 3),
        "baseline/majority/top1": 25.0,
    }
    assert only_one_right(np.array([1, 1, 2, 3]), np.array([1, 2, 2, 0]), np.array([1, 1, 2, 3])) == (2, 0)
    # Two proportions of 0.5 of 100: the standard error of their difference is sqrt(0.25 / 100 * 2).
    assert interval_of_difference(50, 50, 100) == pytest.approx(100 * 1.96 * 0.005**0.5)
    assert remark_on_pixels(61, 50, margin=10, queries=100, what="it") is None
    text = remark_on_pixels(59, 50, margin=10, queries=100, what="it")
    assert text is not None
    assert "59.00 % of 100 images" in text


def test_a_run_ends_with_a_sentence_about_raw_pixels() -> None:
    said: list[str] = []

    def conclude(top1: float, pixels: float) -> str | None:
        numbers = {NAME: top1, f"baseline/pixels/{NAME}": pixels}
        log = SimpleNamespace(latest=lambda *names: {name: numbers[name] for name in names}, say=said.append)
        monitor: Any = SimpleNamespace(knn=SimpleNamespace(name=NAME, query_count=400), log=log)
        return KnnMonitor.conclude(monitor)

    assert "does not beat raw pixels" in str(conclude(54, 50))
    assert said == []
    assert conclude(60, 50) is None
    assert "60.00 % of 400 images by its features and for 50.00 % by raw pixels" in said[0]
