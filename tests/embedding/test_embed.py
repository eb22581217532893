"""`siamtransfer embed`: rows in the order of the listing, features as of `features`, nothing half-written."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from siamtransfer.data import open_dataset
from siamtransfer.embedding.embedder import Embedder
from siamtransfer.embedding.tables import csv_table
from siamtransfer.evaluation.api import extract_features
from siamtransfer.features.feature_file import read_feature_file
from siamtransfer.programs.embed import main as embed
from siamtransfer.programs.knn import main as knn
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.strict_json import to_json

NETWORK, CROP = "random:resnet18:width=8", 32
NAMES = ("plain.png", "com,ma.png", 'quo"te.png', "new\nline.png", "re\rturn.png", os.fsdecode(b"\xff.png"))


def picture(path: Path, seed: int, size: tuple[int, int] = (40, 36)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def odd_names(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes with file names of all kinds, and a file that is no image."""
    folder = tmp_path_factory.mktemp("odd") / "images"
    for number, name in enumerate(NAMES):
        picture(folder / "cats" / name, number)
        picture(folder / "dogs" / name, 100 + number, (48, 33))
    (folder / "cats" / "broken.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def tables(odd_names: Path) -> Path:
    """The folder with one table of each kind."""
    for ending in ("npz", "csv", "parquet"):
        run(odd_names, odd_names.parent / f"out.{ending}", network=NETWORK)
    return odd_names.parent


def run(images: Path | str, out: Path, *words: str, network: str = "pixels") -> dict[str, object]:
    record = embed([network, str(images), str(out), "--crop", str(CROP), "--data.workers", "0", *words])
    assert record is not None
    return record


def expected_paths(folder: Path) -> list[str]:
    """By class, then in the order of the bytes of the names; without the broken one."""
    return [f"{kind}/{name}" for kind in ("cats", "dogs") for name in sorted(NAMES, key=os.fsencode)]


def test_rows_are_the_readable_images_in_the_order_of_the_listing(tables: Path, odd_names: Path) -> None:
    arrays = np.load(tables / "out.npz")
    assert arrays["paths"].tolist() == expected_paths(odd_names)
    assert arrays["classes"].tolist() == ["cats", "dogs"]
    assert arrays["labels"].tolist() == [0] * 6 + [1] * 6
    sizes = np.stack([arrays["width"], arrays["height"]], axis=1).tolist()
    assert sizes == [[40, 36]] * 6 + [[48, 33]] * 6
    assert arrays["unreadable_paths"].tolist() == ["cats/broken.png"]
    assert "its content is text" in arrays["unreadable_reasons"][0]
    listed = sorted([*arrays["index"].tolist(), *arrays["unreadable_index"].tolist()])
    assert listed == list(range(13))


def test_features_are_those_of_the_evaluators_bit_for_bit(tables: Path, odd_names: Path) -> None:
    images, _ = open_dataset([odd_names / path for path in expected_paths(odd_names)])
    expected = extract_features(NETWORK, images, crop=CROP, device="cpu").tensor.numpy()
    assert expected.shape == (12, 64)
    assert np.array_equal(np.load(tables / "out.npz")["features"], expected)


def test_all_three_kinds_say_the_same(tables: Path) -> None:
    arrays = np.load(tables / "out.npz")
    with (tables / "out.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        header, *rows = csv.reader(file)
    assert header[:5] == ["path", "width", "height", "class", "f0"]
    assert [row[0] for row in rows] == arrays["paths"].tolist()
    assert [row[1:4] for row in rows[::6]] == [["40", "36", "cats"], ["48", "33", "dogs"]]
    values = np.array([row[4:] for row in rows], np.float64).astype(np.float32)
    assert np.array_equal(values, arrays["features"])

    table = pq.read_table(tables / "out.parquet")
    assert [os.fsdecode(path) for path in table["path_bytes"].to_pylist()] == arrays["paths"].tolist()
    assert table["path"].to_pylist()[0] == "cats/com,ma.png" and "cats/\\xff.png" in table["path"].to_pylist()
    assert np.array_equal(np.stack(table["features"].to_numpy()), arrays["features"])
    assert table["class"].to_pylist() == ["cats"] * 6 + ["dogs"] * 6
    metadata = pq.read_metadata(tables / "out.parquet").metadata
    records = [
        json.loads(str(arrays["record"])),
        json.loads((tables / "out.json").read_text()),
        json.loads(metadata[b"record"]),
    ]
    for record in records:
        assert record["metrics"] == {"images": 12, "unreadable": 1, "dim": 64}
        assert record["provenance"]["reading"]["normalisation"]["source"] == "the baseline"
    assert records[1]["unreadable"] == json.loads(metadata[b"unreadable"])
    assert records[1]["unreadable"][0]["path"] == "cats/broken.png"


def test_evaluators_read_the_npz(tables: Path) -> None:
    file = str(tables / "out.npz")
    mapped = read_feature_file(file, mapped=True)
    assert isinstance(mapped.features, np.memmap) and mapped.features.shape == (12, 64)
    record = knn(["--train-features", file, "--test-features", file, "--k", "1", "--device", "cpu"])
    assert record is not None and record["metrics"]["knn/k=1/T=0.07/top1"] == 100


def test_many_pieces_are_one_table(
    odd_names: Path, tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("siamtransfer.embedding.tables.parquet_table.GROUP_BYTES", 1)
    for ending in ("npz", "parquet"):
        run(odd_names, tmp_path / f"out.{ending}", "--forward-batch-size", "5", network=NETWORK)
    arrays, table = np.load(tmp_path / "out.npz"), pq.ParquetFile(tmp_path / "out.parquet")
    assert table.num_row_groups == 3
    assert arrays["paths"].tolist() == np.load(tables / "out.npz")["paths"].tolist()
    features = np.stack(table.read()["features"].to_numpy())
    assert np.array_equal(features, arrays["features"])
    assert np.allclose(features, np.load(tables / "out.npz")["features"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["train/a/1.png", "train/b/2.png", "test/3.png"], "no class and no part (1), so"),
        (["test/a/1.png", "train/a/2.png", "train/b/3.png", "extra/4.png"], "no class and no part (1), so"),
        (["test/1.png", "train/2.png"], "a part train without class folders"),
    ],
)
def test_images_outside_of_classes_are_not_lost(
    names: list[str], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate(names):
        picture(tmp_path / "mine" / name, number)
    run(tmp_path / "mine", tmp_path / "out.npz")
    arrays = np.load(tmp_path / "out.npz")
    assert arrays["paths"].tolist() == sorted(names) and "labels" not in arrays
    assert why in capsys.readouterr().err


def test_embed_says_what_is_remarked_on_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, name in enumerate(("2023/jan/1", "2023/feb/2", "2024/jan/3", "2024/feb/4")):
        picture(tmp_path / "mine" / f"{name}.png", number)
    run(tmp_path / "mine", tmp_path / "out.npz")
    assert len(np.load(tmp_path / "out.npz")["paths"]) == 4
    assert "hold folders of the same names (feb, jan)" in capsys.readouterr().err


def test_unlabelled_sources(odd_names: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "mixed"
    picture(folder / "top.png", 0)
    picture(folder / "deep" / "er" / "low.png", 1)
    run(folder, tmp_path / "mixed.npz")
    arrays = np.load(tmp_path / "mixed.npz")
    assert arrays["paths"].tolist() == ["deep/er/low.png", "top.png"] and "labels" not in arrays
    assert "holds images beside its folders" in capsys.readouterr().err
    run(folder / "top.png", tmp_path / "single.npz")
    single = np.load(tmp_path / "single.npz")
    assert single["paths"].tolist() == ["top.png"] and len(single["features"]) == 1
    (tmp_path / "list.txt").write_text("mixed/top.png\nmixed/deep/er/low.png\n")
    run(tmp_path / "list.txt", tmp_path / "list.npz")
    assert np.load(tmp_path / "list.npz")["paths"].tolist() == ["mixed/top.png", "mixed/deep/er/low.png"]
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.write(folder / "top.png", "a/one.png")
        archive.write(folder / "deep/er/low.png", "b/two.png")
    run(tmp_path / "images.zip", tmp_path / "zip.csv")
    assert [line.split(",")[:4] for line in (tmp_path / "zip.csv").read_text().splitlines()[1:]] == [
        ["a/one.png", "40", "36", "a"],
        ["b/two.png", "40", "36", "b"],
    ]


def test_all_splits_have_rows(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "val")):
        for kind in ("a", "b"):
            picture(tmp_path / "set" / split / kind / "1.png", number)
    run(tmp_path / "set", tmp_path / "both.npz")
    arrays = np.load(tmp_path / "both.npz")
    assert arrays["paths"].tolist() == ["train/a/1.png", "train/b/1.png", "val/a/1.png", "val/b/1.png"]
    assert arrays["split"].tolist() == ["train", "train", "val", "val"]
    run(tmp_path / "set", tmp_path / "val.npz", "--split", "val")
    assert np.load(tmp_path / "val.npz")["paths"].tolist() == ["val/a/1.png", "val/b/1.png"]
    for kind in ("a", "b"):
        picture(tmp_path / "set" / "test" / kind / "1.png", 7)
    run(tmp_path / "set", tmp_path / "three.csv")
    paths = [line.split(",")[0] for line in (tmp_path / "three.csv").read_text().splitlines()[1:]]
    assert paths == [f"{split}/{kind}/1.png" for split in ("train", "val", "test") for kind in ("a", "b")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{images}", "{out}.txt"], r"out\.txt must end in \.npz or \.parquet or \.csv"),
        (["{images}"], r"needs a checkpoint \(or a baseline\), the images and the file to write"),
        (["nowhere", "{out}.npz"], r"there is no folder or file nowhere, and no set of this name"),
        (["{images}", "{out}.npz", "--split", "test"], r"has no split test"),
        (["{images}", "{out}.npz", "--layers", "layer9"], r"has no layer 'layer9'"),
        (["{images}", "{out}.npz", "--data.name", "flat"], r"leave --data\.name out"),
        (["{images}", "{out}.npz", "--data.unreadable", "stop"], r"cannot read the image .*broken\.png"),
        (
            ["{images}", "{out}.npz", "--data.max-unreadable", "0.01"],
            r"1 of 13 images .* above --data\.max-un",
        ),
        (["{images}/cats/broken.png", "{out}.npz"], r"none of the 1 images can be read: broken\.png"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(
    odd_names: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    filled = [word.format(images=odd_names, out=tmp_path / "out") for word in words]
    with pytest.raises(UserError, match=message):
        embed([NETWORK, *filled, "--crop", str(CROP), "--data.workers", "0"])
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_only_on_request(tables: Path, odd_names: Path, tmp_path: Path) -> None:
    for name in ("out.csv", "out.json"):
        shutil.copy(tables / name, tmp_path / name)
    with pytest.raises(UserError, match="exists"):
        run(odd_names, tmp_path / "out.csv")
    (tmp_path / "out.csv").unlink()
    with pytest.raises(UserError, match=r"out\.json exists"):
        run(odd_names, tmp_path / "out.csv")
    shutil.copy(odd_names / "dogs" / "plain.png", tmp_path / "odd.npz")
    with pytest.raises(UserError, match="is the source of the images"):
        run(tmp_path / "odd.npz", tmp_path / "odd.npz", "--force")


@pytest.mark.parametrize("ending", ["npz", "csv", "parquet"])
def test_an_error_in_the_middle_leaves_the_old_file(
    odd_names: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    out = tmp_path / f"out.{ending}"
    out.write_text("old")
    blocks = Embedder.blocks

    def fail_at_the_second(self: Embedder, images: object) -> object:
        yield next(iter(blocks(self, images)))  # type: ignore[arg-type]
        raise UserError("a disk is gone")

    monkeypatch.setattr(Embedder, "blocks", fail_at_the_second)
    with pytest.raises(UserError, match="a disk is gone"):
        run(odd_names, out, "--force", "--forward-batch-size", "4")
    assert [path.name for path in tmp_path.iterdir()] == [out.name] and out.read_text() == "old"


def test_a_record_may_name_a_folder_that_is_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    text = to_json({"folder": f"\\{name}"})
    assert text == '{"folder": "\\\\caf\\udce9"}'
    assert os.fsencode(json.loads(text)["folder"]) == b"\\caf\xe9"
    picture(tmp_path / name / "1.png", 0)
    record = run(tmp_path / name, tmp_path / "out.csv")
    assert json.loads(to_json(record))["metrics"]["images"] == 1


def test_a_full_disk_is_told_of_the_table_and_leaves_nothing(
    odd_names: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(csv_table.CsvRows, "write", full)
    with pytest.raises(UserError, match=r"cannot write .*out\.csv: No space left on device"):
        run(odd_names, tmp_path / "out.csv")
    assert list(tmp_path.iterdir()) == []
