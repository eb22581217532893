"""Every container holds what the folder holds: order, bytes, labels, names, fingerprint, splits."""

from __future__ import annotations

import multiprocessing
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.containers import Made

from siamtransfer.data import ImageSet, open_dataset, open_images, open_labelled
from siamtransfer.data.containers.contained import ContainedImages
from siamtransfer.data.imageset import content_fingerprint

KINDS = ("shards", "zip", "parquet", "huggingface")


def opened(made: Made, kind: str, split: str = "train") -> Any:
    return open_images(kind, root=made.roots[kind], split=split)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_images_labels_and_names_are_the_folders(made: Made, kind: str, split: str) -> None:
    ours, folder = opened(made, kind, split), opened(made, "folder", split)
    assert isinstance(ours, ContainedImages)
    assert (len(ours), ours.split, ours.classes) == (len(folder), folder.split, folder.classes)
    assert ours.labels is not None and ours.labels.dtype == np.int64
    assert ours.labels.tolist() == folder.labels.tolist()
    for index in np.random.default_rng(0).permutation(len(ours)).tolist():
        assert ours.encoded(index) == folder.encoded(index)
        assert ours.relative_name(index) == folder.relative_name(index)
        assert (ours.image(index) == folder.image(index)).all()
    assert len(ours.containers) > (kind != "zip")


@pytest.mark.parametrize("kind", ["shards", "zip", "huggingface"])
def test_the_fingerprint_is_the_folders_so_a_run_goes_on(made: Made, kind: str) -> None:
    assert opened(made, kind).fingerprint == opened(made, "folder").fingerprint


@pytest.mark.parametrize("kind", KINDS)
def test_fingerprints_of_copies_and_of_changed_bytes(made: Made, kind: str, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(made.roots[kind], tmp_path / "copy"))
    before, images = opened(made, kind), open_images(kind, root=copy)
    assert before.fingerprint == images.fingerprint
    assert content_fingerprint(before) == content_fingerprint(images) != images.fingerprint
    container = Path(images.containers[0])  # type: ignore[attr-defined]
    data = bytearray(container.read_bytes())
    data[data.index(before.encoded(0)[-40:]) if kind != "zip" and kind != "parquet" else 60] ^= 1
    container.write_bytes(data)
    changed = open_images(kind, root=copy)
    assert changed.fingerprint == before.fingerprint
    assert content_fingerprint(changed) != content_fingerprint(before)


@pytest.mark.parametrize("kind", KINDS)
def test_train_and_test_are_found_by_name_and_by_path(made: Made, kind: str) -> None:
    train, test = open_labelled(kind, root=made.roots[kind])
    assert test is not None and (train.split, test.split) == ("train", "val")
    train, test = open_dataset(made.roots[kind])
    assert test is not None and (train.name, len(train), len(test)) == (kind, 12, 6)


def test_single_files_are_recognised_by_their_ending(made: Made) -> None:
    assert open_dataset(made.roots["zip"] / "images.zip")[1] is not None
    parquet = made.roots["parquet"] / "data" / "train-00000-of-00002.parquet"
    assert len(open_dataset(parquet)[0]) == 6
    shard = next(made.roots["shards"].glob("train-*.tar"))
    assert open_dataset(shard)[0].labels is not None


def read_all(images: ImageSet, results: Any) -> None:
    results.put([int(images.image(index).sum()) for index in reversed(range(len(images)))])


@pytest.mark.parametrize("kind", KINDS)
def test_processes_read_without_disturbing_each_other(made: Made, kind: str) -> None:
    images = opened(made, kind)
    expected = [int(images.image(index).sum()) for index in reversed(range(len(images)))]
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    workers = [context.Process(target=read_all, args=(images, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    assert [int(images.image(index).sum()) for index in reversed(range(len(images)))] == expected
    assert [results.get(timeout=60) for _ in workers] == [expected, expected]
    for worker in workers:
        worker.join()
    copy = pickle.loads(pickle.dumps(images))  # as a spawned worker gets it
    assert [int(copy.image(index).sum()) for index in reversed(range(len(images)))] == expected


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_descriptors_are_bounded_and_closed(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("siamtransfer.data.containers.contained.OPEN_FILES", 1)
    before = descriptors()
    images = opened(made, "shards")
    for index in (0, len(images) - 1, 0, len(images) - 1):
        images.image(index)
    assert descriptors() == before + 1
    del images
    assert descriptors() == before
