"""The cache of features: its keys, and files that are complete or not used."""

from __future__ import annotations

import functools
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.small_runs import context, send

import siamtransfer.features.cache
from siamtransfer.features.cache import FeatureCache
from siamtransfer.features.extract import Transform

TRANSFORM = Transform(16, 18, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_a_key_changes_with_everything_that_moves_the_features(tmp_path: Path) -> None:
    cache, base = FeatureCache(tmp_path), ("weights", "images", TRANSFORM, "float32")
    others = [
        ("other weights", "images", TRANSFORM, "float32"),
        ("weights", "other images", TRANSFORM, "float32"),
        ("weights", "images", TRANSFORM, "bfloat16"),
        *(
            ("weights", "images", replace(TRANSFORM, **change), "float32")
            for change in (
                {"crop": 17},
                {"resize": None},
                {"mean": (0.5,) * 3},
                {"std": (0.5,) * 3},
                {"interpolation": "bicubic"},
            )
        ),
    ]
    paths = [cache.path(*key) for key in (base, *others)]
    assert len(set(paths)) == len(paths)
    assert cache.path(*base) == FeatureCache(tmp_path).path(*base)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    cache, features = FeatureCache(tmp_path / "new"), torch.randn(5, 3)
    path = cache.path("w", "i", TRANSFORM, "float32")
    assert cache.read(path, 5) is None
    cache.write(path, features)
    found = cache.read(path, 5)
    assert found is not None
    assert torch.equal(found, features)
    assert cache.read(path, 6) is None
    found += 1  # memory-mapped privately: the file stays
    assert torch.equal(FeatureCache(tmp_path / "new").read(path, 5), features)  # type: ignore[arg-type]


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_a_file_that_is_not_whole_is_not_used(content: bytes | None, tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    path = cache.path("w", "i", TRANSFORM, "float32")
    cache.write(path, torch.randn(50, 30))
    path.write_bytes(path.read_bytes()[:-8] if content is None else content)
    assert cache.read(path, 50) is None
    np.save(path, np.zeros((50, 30)))  # float64
    assert cache.read(path, 50) is None


def write_and_die(folder: Path) -> None:
    class Dying:
        def __init__(self, file: Any):
            self.file = file

        def write(self, content: bytes) -> None:
            self.file.write(content[:100])
            self.file.flush()
            send(signal.SIGKILL)

    siamtransfer.features.cache.np.save = lambda file, *_, **__: Dying(file).write(bytes(1000))
    cache = FeatureCache(folder)
    cache.write(cache.path("w", "i", TRANSFORM, "float32"), torch.randn(50, 30))


def test_a_killed_write_leaves_nothing_to_use(tmp_path: Path) -> None:
    process = context().Process(target=functools.partial(write_and_die, tmp_path))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    cache = FeatureCache(tmp_path)
    assert cache.read(cache.path("w", "i", TRANSFORM, "float32"), 50) is None
