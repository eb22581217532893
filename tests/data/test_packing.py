"""Packing: names and bytes are kept, nothing is replaced, a stopped pack goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.containers import Made, jpeg, write_tree

from siamtransfer.data import open_dataset, open_images
from siamtransfer.data import packing as module
from siamtransfer.data.imageset import ArrayImages
from siamtransfer.data.packing import PackSettings, pack, parse_bytes
from siamtransfer.programs.pack import main
from siamtransfer.utils.errors import UserError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "tree")


def test_the_program_packs_every_split_and_prints_a_record(made: Made, tmp_path: Path) -> None:
    for kind in ("folder", "zip", "parquet", "huggingface", "shards"):
        out = tmp_path / kind
        record = main([str(made.roots[kind]), str(out), "--shard-size", "12KB"])
        assert record is not None and record["metrics"]["pack/train/images"] == 12
        assert sorted(path.name for path in out.iterdir()) == sorted(
            path.name for path in made.roots["shards"].iterdir()
        )
        for file in out.glob("*.tar"):
            assert file.read_bytes() == (made.roots["shards"] / file.name).read_bytes()
            assert file.stat().st_size <= 12_000 + 10240
    assert json.dumps(record)


def test_reduced_images(tmp_path: Path, tree: Path) -> None:
    large = tree / "train" / "a" / "large.v2.png"
    Image.fromarray(np.zeros((64, 40, 3), np.uint8)).save(large)
    main([str(tree), str(tmp_path / "out"), "--size", "16", "--split", "train"])
    images = open_images("shards", root=tmp_path / "out")
    shapes = [images.image(n).shape for n in range(len(images))]
    names = [images.relative_name(n) for n in range(len(images))]  # type: ignore[attr-defined]
    assert shapes[names.index("a/large_v2.jpg")] == (26, 16, 3)
    assert shapes.count((9, 11, 3)) == 12  # smaller ones are kept


def test_images_in_memory_and_without_labels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    pack([ArrayImages("made", "train", pixels)], tmp_path / "out", PackSettings(10**6))
    images = open_images("shards", root=tmp_path / "out")
    assert images.labels is None
    assert (np.stack([images.image(n) for n in range(5)]) == pixels).all()


@pytest.mark.parametrize("stop_after", [0, 1, 2, 3])
def test_a_stopped_pack_is_refused_and_goes_on(
    stop_after: int, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "train" / "a" / "a_1.JPEG").write_bytes(b"")  # left out, before and after the stop
    (tree / "train" / "zoo" / "zoo_3.JPEG").write_bytes(b"")
    train, _ = open_dataset(tree)
    settings = PackSettings(12_000, max_unreadable=0.2)
    whole = pack([train], tmp_path / "whole", settings)
    assert whole["train"].unreadable == 2
    out = tmp_path / "out"
    verify, calls = module._verify, []

    def stop(*arguments: object) -> None:
        calls.append(1)
        if len(calls) > stop_after:
            raise KeyboardInterrupt
        verify(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_verify", stop)
    with pytest.raises(KeyboardInterrupt):
        pack([train], out, settings)
    monkeypatch.setattr(module, "_verify", verify)
    assert len(list(out.glob("*.tar"))) == stop_after
    if stop_after:
        with pytest.raises(UserError, match="was not finished; run the same siamtransfer pack with --resume"):
            open_images("shards", root=out)
    with pytest.raises(UserError, match="go on with --resume"):
        pack([train], out, settings)
    with pytest.raises(UserError, match="other images or settings"):
        pack([train], out, PackSettings(13_000, max_unreadable=0.2), resume=True)
    again = pack([train], out, settings, resume=True)
    assert again == whole
    for file in (tmp_path / "whole").glob("*.tar"):
        assert (out / file.name).read_bytes() == file.read_bytes()
    with pytest.raises(UserError, match="is not empty, and packing replaces nothing"):
        pack([train], out, settings, resume=True)


def test_a_shard_that_does_not_hold_what_was_written_never_gets_its_name(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module.scan

    def other_place(shard: Path) -> object:
        index = real(shard)
        index.offsets += 1
        return index

    monkeypatch.setattr(module, "scan", other_place)
    with pytest.raises(UserError, match="does not hold what was written"):
        pack([open_dataset(tree)[0]], tmp_path / "out", PackSettings(10**6))
    assert [path.name for path in (tmp_path / "out").iterdir() if path.suffix == ".tar"] == []


def test_names_whose_keys_would_meet(tmp_path: Path) -> None:
    for number, name in enumerate(("x.1.jpg", "x_1.jpg", "x_1.jpeg")):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(jpeg(number))
    source = open_images("flat", root=tmp_path / "in")
    pack([source], tmp_path / "out", PackSettings(10**6))
    images = open_images("shards", root=tmp_path / "out")
    assert [images.encoded(n) for n in range(3)] == [source.encoded(n) for n in range(3)]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{tree}"], "give the images and a new folder"),
        (["{tree}", "{tree}/inside"], "cannot go into"),
        (["{tree}", "{out}", "--shard-size", "big"], "is no size"),
        (["{tree}", "{out}", "--shard-size", "9"], "at least 10KB"),
        (["{tree}", "{out}", "--size", "0"], "at least 1 pixel"),
        (["{tree}", "{out}", "--quality", "101"], "from 1 to 100"),
        (["{tree}", "{out}", "--split", "extra"], "has no split extra"),
        (["{tree}/nothing", "{out}"], "there is no set"),
    ],
)
def test_mistakes_write_nothing(words: list[str], said: str, tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError, match=said):
        main([word.format(tree=tree, out=out) for word in words])
    assert not out.exists()


def test_too_many_unreadable_images_stop_it(tree: Path, tmp_path: Path) -> None:
    (tree / "train" / "a" / "a_0.JPEG").write_bytes(b"")
    with pytest.raises(UserError, match="above the limit"):
        main([str(tree), str(tmp_path / "out"), "--max-unreadable", "0"])
    shutil.rmtree(tmp_path / "out")


def test_sizes() -> None:
    assert [parse_bytes(text) for text in ("1GB", "500 mb", "1.5GiB", "20000")] == [
        10**9,
        5 * 10**8,
        3 * 2**29,
        20000,
    ]
