"""The diagnostics of feature files, and what is refused of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.diagnoses import RANDOM, refused, score

from siamtransfer.evaluation.diagnostics import measures


def write_features(folder: Path, labels: np.ndarray | None = None, **changes: Any) -> list[Path]:
    generator = np.random.default_rng(0)
    for name, count in (("train", 60), ("test", 40)):
        y = np.arange(count) % 3 if labels is None else labels[:count]
        x = (generator.normal(size=(count, 12)) + 2 * np.eye(3, 12)[np.arange(count) % 3]).astype(np.float16)
        np.savez(folder / f"{name}.npz", **{"features": x, "labels": y, **changes})
    return [folder / "train.npz", folder / "test.npz"]


@pytest.mark.parametrize("part", ["train", "test"])
def test_feature_files_are_measured(part: str, tmp_path: Path) -> None:
    train, test = write_features(tmp_path)
    record = score("--train-features", train, "--test-features", test, "--part", part)
    found = record["metrics"]
    content = np.load(tmp_path / f"{part}.npz")
    x, y = torch.from_numpy(content["features"]), torch.from_numpy(content["labels"])
    assert found["rankme/backbone"] == pytest.approx(measures.rankme(measures.singular_values(x)), rel=1e-6)
    assert found["tolerance/backbone"] == pytest.approx(measures.tolerance(x, y), rel=1e-6)
    assert found["kmeans_nmi/backbone"] > 0.3
    assert "alignment/backbone" not in found
    assert len(record["provenance"]["checkpoints"][0]["train_digest"]) == 64


@pytest.mark.parametrize(
    "labels", [np.eye(60, dtype=np.int64), np.zeros(60, np.int64)], ids=["several", "one"]
)
def test_labels_that_make_no_classes_are_told(
    labels: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, test = write_features(tmp_path, labels)
    found = score("--train-features", train, "--test-features", test)["metrics"]
    assert "no tolerance and clusters" in capsys.readouterr().err
    assert not any(name.startswith(("kmeans", "tolerance")) for name in found)
    assert "uniformity/backbone" in found


def test_mistakes_are_one_sentence(tmp_path: Path) -> None:
    files = write_features(tmp_path)
    options = ["--train-features", files[0], "--test-features", files[1]]
    assert "not both" in refused(RANDOM, *options)
    assert "feature files hold none" in refused(*options, "--recipe", "byol")
    assert "hold none: leave it out" in refused(*options, "--invariance")
    assert "come in pairs" in refused(*options[:2])
    np.savez(tmp_path / "narrow.npz", features=np.ones((4, 2), np.float32), labels=np.arange(4))
    assert "width 12" in refused(*options[:3], tmp_path / "narrow.npz")
    np.savez(files[0], features=np.full((60, 12), np.inf, np.float16), labels=np.arange(60))
    assert "finite" in refused(*options)
