"""The cache of features: its keys, and files that are complete or not used."""

from __future__ import annotations

import errno
import functools
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.small_runs import context, on_ranks, send

import siamtransfer.features.cache
from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime
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


def test_a_file_of_another_key_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = FeatureCache(tmp_path)
    path, other = (cache.path(name, "i", TRANSFORM, "float32") for name in "ab")
    cache.write(path, torch.randn(5, 3))
    cache.write(other, torch.randn(5, 3))
    path.write_bytes(other.read_bytes())
    with caplog.at_level("INFO"):
        assert cache.read(path, 5) is None
    assert f"{path} is damaged and is not used" in caplog.text


def test_other_programs_can_open_a_file(tmp_path: Path) -> None:
    cache, features = FeatureCache(tmp_path), torch.randn(5, 3)
    path = cache.path("w", "i", TRANSFORM, "float32")
    cache.write(path, features)
    assert np.array_equal(np.load(path), features.numpy())
    assert np.array_equal(np.load(path, mmap_mode="r"), features.numpy())


def unwritable(tmp_path: Path, kind: str) -> Path:
    folder = tmp_path / "cache"
    if kind == "a file":
        folder.touch()
        return folder
    if kind == "below a file":
        folder.touch()
        return folder / "below"
    return Path("/proc/no-such-folder")


@pytest.mark.parametrize("kind", ["a file", "below a file", "a file system that takes no files"])
def test_a_cache_that_cannot_be_written_is_remarked_once_and_work_goes_on(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache, features = FeatureCache(unwritable(tmp_path, kind)), torch.randn(5, 3)
    with caplog.at_level("INFO"):
        for name in "ab":
            path = cache.path(name, "i", TRANSFORM, "float32")
            assert cache.read_or_extract(path, 5, lambda: features) is features
    assert caplog.text.count("features are not kept for the next time: cannot write") == 1


def test_a_full_disk_is_remarked_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    cache, features = FeatureCache(tmp_path), torch.randn(5, 3)
    path = cache.path("w", "i", TRANSFORM, "float32")
    monkeypatch.setattr(siamtransfer.features.cache.np, "save", full)
    with caplog.at_level("INFO"):
        assert cache.read_or_extract(path, 5, lambda: features) is features
    assert "No space left on device" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_features_are_extracted_once_and_again_where_the_file_is_damaged(tmp_path: Path) -> None:
    cache, extracted = FeatureCache(tmp_path), [torch.randn(5, 3), torch.randn(5, 3)]
    path = cache.path("w", "i", TRANSFORM, "float32")
    rest = iter(extracted)

    def read() -> torch.Tensor:
        return cache.read_or_extract(path, 5, lambda: next(rest))

    assert torch.equal(read(), extracted[0])
    assert torch.equal(read(), extracted[0])
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    assert torch.equal(read(), extracted[1])
    assert torch.equal(read(), extracted[1])


def read_on_a_rank(_: Runtime, folder: Path) -> list[float]:
    """What a rank gets, where rank 1 sees a damaged file that rank 0 sees whole."""
    cache = FeatureCache(folder)
    path = cache.path("w", "i", TRANSFORM, "float32")
    if collectives.rank() == 1:
        cache.read = lambda *_, **__: None  # type: ignore[method-assign]
    return cache.read_or_extract(path, 2, lambda: torch.full((1, 1), 7.0)).flatten().tolist()


def test_ranks_that_see_different_files_extract_together(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    cache.write(cache.path("w", "i", TRANSFORM, "float32"), torch.zeros(2, 1))
    assert on_ranks(read_on_a_rank, tmp_path) == [[7.0, 7.0], [7.0, 7.0]]


def share_of_rank(runtime: Runtime, folder: str, blocks: int) -> list[torch.Tensor]:
    """Seven features by three ranks, in blocks of so many bytes a rank; twice."""
    collectives.GATHER_BYTES = blocks
    cache = FeatureCache(Path(folder))
    path = cache.path("w", "i", TRANSFORM, "float32")
    rows = torch.arange(14.0).view(7, 2)[runtime.rank :: runtime.world_size].clone()
    return [cache.read_or_extract(path, 7, lambda: rows).clone() for _ in range(2)]


def test_ranks_write_one_file_block_by_block_as_one_process_writes_it(tmp_path: Path) -> None:
    features = torch.arange(14.0).view(7, 2)
    alone = FeatureCache(tmp_path / "alone")
    path = alone.path("w", "i", TRANSFORM, "float32")
    alone.write(path, features)
    for found in on_ranks(share_of_rank, str(tmp_path / "ranks"), 2 * 2 * 4 * 3, world_size=3):
        assert all(torch.equal(each, features) for each in found)
    assert (tmp_path / "ranks" / path.name).read_bytes() == path.read_bytes()


def test_ranks_that_cannot_write_have_all_features_in_memory() -> None:
    for found in on_ranks(share_of_rank, "/proc/no-such-folder", 2**20, world_size=2):
        assert all(torch.equal(each, torch.arange(14.0).view(7, 2)) for each in found)


def write_often(folder: Path, value: float) -> None:
    cache = FeatureCache(folder)
    path = cache.path("w", "i", TRANSFORM, "float32")
    for _ in range(30):
        cache.write(path, torch.full((200, 50), value))


def test_writers_at_the_same_time_leave_one_complete_file(tmp_path: Path) -> None:
    processes = [context().Process(target=write_often, args=(tmp_path, value)) for value in (1.0, 2.0)]
    for process in processes:
        process.start()
    cache = FeatureCache(tmp_path)
    path = cache.path("w", "i", TRANSFORM, "float32")
    while any(process.is_alive() for process in processes):
        found = cache.read(path, 200)
        assert found is None or found.unique().numel() == 1
    found = cache.read(path, 200)
    assert found is not None and found.unique().numel() == 1
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


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
