"""Features of any framework from an .npz file, and files that do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from siamtransfer.features.feature_file import read_feature_file
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import atomic_write


def write_npz(path: Path, **arrays: Any) -> Path:
    with atomic_write(path) as file:
        np.savez(file, **arrays)
    return path


def test_foreign_features_are_read_as_float32_and_int64(tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float16)
    found = read_feature_file(
        write_npz(tmp_path / "a.npz", features=features, labels=np.array([3, 1, 2, 0], np.uint8), more=1)
    )
    assert (found.features.dtype, found.labels.dtype) == (torch.float32, torch.int64)  # type: ignore[union-attr]
    assert torch.equal(found.features, torch.from_numpy(features.astype(np.float32)))
    assert isinstance(found.labels, Tensor)
    assert found.labels.tolist() == [3, 1, 2, 0]


GOOD, LABELS = np.ones((4, 3), np.float32), np.arange(4)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"features": GOOD}, "has no array labels"),
        ({"labels": LABELS}, "has no array features"),
        ({"features": GOOD, "labels": LABELS[:3]}, r"features\[4, 3\] and labels\[3\]"),
        ({"features": GOOD[0], "labels": LABELS[:3]}, r"features\[3\]"),
        ({"features": GOOD[:0], "labels": LABELS[:0]}, r"features\[0, 3\]"),
        ({"features": GOOD, "labels": LABELS / 2}, "labels of type float64"),
        ({"features": GOOD * np.inf, "labels": LABELS}, "not all finite"),
        ({"features": GOOD * np.float64(1e200), "labels": LABELS}, "beyond the range of float32"),
        ({"features": GOOD * np.float64(1e-200), "labels": LABELS}, "beyond the range of float32"),
        ({"features": GOOD.astype(int), "labels": LABELS}, "finite floating-point"),
        ({"features": np.array([["a"] * 3] * 4), "labels": LABELS}, "finite floating-point"),
        ({"features": np.array([[None] * 3] * 4, object), "labels": LABELS}, "cannot be read"),
    ],
)
def test_foreign_files_that_do_not_fit_are_refused_by_name(
    arrays: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=words) as caught:
        read_feature_file(write_npz(tmp_path / "mine.npz", **arrays))
    assert "mine.npz" in str(caught.value)


def test_foreign_files_that_are_no_npz(tmp_path: Path) -> None:
    np.save(tmp_path / "array.npy", GOOD)
    (tmp_path / "text.npz").write_text("text")
    whole = write_npz(tmp_path / "whole.npz", features=GOOD, labels=LABELS).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[:-30])
    (tmp_path / "flipped.npz").write_bytes(whole[:150] + bytes([whole[150] ^ 1]) + whole[151:])
    assert read_feature_file(tmp_path / "whole.npz").features.shape == (4, 3)
    for name in ("array.npy", "text.npz", "missing.npz", "cut.npz", "flipped.npz", "."):
        with pytest.raises(UserError, match=name):
            read_feature_file(tmp_path / name)
