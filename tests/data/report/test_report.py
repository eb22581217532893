"""The report of a folder: everything that is odd in a small set, found and named; the same set in a zip."""

from __future__ import annotations

import json
import logging
import shutil
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from siamtransfer.data import open_images
from siamtransfer.data.imageset import ArrayImages
from siamtransfer.data.report.facts import ImageFacts, facts_of
from siamtransfer.data.report.overview import say_overview
from siamtransfer.programs.inspect import main as inspect
from siamtransfer.utils.errors import UserError

RNG = np.random.default_rng(0)


def picture(height: int, width: int, channels: int = 3) -> Image.Image:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return Image.fromarray(RNG.integers(0, 255, shape, dtype=np.uint8))


def bomb(path: Path) -> None:
    """A PNG of 3.6 thousand million pixels in 100 bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b""))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train with 16 + 5 images and Test with 4 + 3, of which some are odd, broken or equal."""
    root = tmp_path_factory.mktemp("report") / "my images"
    cat, dog, test_cat, test_dog = (
        root / name for name in ("Train/cat", "Train/dog", "Test/cat", "Test/dog")
    )
    for part in (cat, dog, test_cat, test_dog):
        part.mkdir(parents=True)
    for number in range(5):
        picture(60, 80).save(cat / f"{number}.jpg")
        picture(60, 80).save(dog / f"{number}.png")
    for number in range(3):
        picture(60, 80).save(test_cat / f"{number}.jpg")
        picture(60, 80).save(test_dog / f"{number}.png")
    shutil.copy(cat / "0.jpg", test_cat / "leak.jpg")
    Image.open(dog / "0.png").save(test_dog / "0.png", compress_level=1)
    shutil.copy(cat / "1.jpg", dog / "4.png")
    (cat / "empty.jpg").write_bytes(b"")
    (cat / "broken.jpg").write_bytes((cat / "2.jpg").read_bytes()[:400])
    bomb(cat / "bomb.png")
    (cat / "gone.jpg").symlink_to("/nowhere.jpg")
    (cat / "notes.txt").write_text("x")
    (cat / "raw.CR2").write_text("x")
    picture(60, 80, 4).save(cat / "alpha.png")
    picture(60, 80).convert("RGBA").save(cat / "opaque.png")
    picture(20, 90, 1).save(cat / "long.png")
    picture(60, 80).convert("CMYK").save(cat / "inks.jpg")
    exif = Image.Exif()
    exif[0x112] = 6
    picture(60, 80).save(cat / "turned.jpg", exif=exif)
    picture(40, 40).save(cat / "anim.gif", save_all=True, append_images=[picture(40, 40)])
    Image.fromarray(RNG.integers(0, 60000, (40, 40), dtype=np.uint16)).save(cat / "deep.png")
    return root


@pytest.fixture(scope="module")
def report(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """What `inspect` writes, with all names, and what it prints."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("siamtransfer")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    out = tmp_path_factory.mktemp("out") / "report.json"
    try:
        inspect([str(folder), "--workers", "0", "--out", str(out)])
    finally:
        logger.removeHandler(handler)
    return json.loads(out.read_text()), "\n".join(said)


def test_counts(report: tuple[dict[str, Any], str]) -> None:
    record, said = report
    found = record["provenance"]["report"]
    assert found["parts"] == {"train": 21, "test": 7} and found["labels"] == "the names of the folders"
    assert found["classes"] == {"cat": [16, 4], "dog": [5, 3]}
    assert {ending: count for ending, (count, _) in found["skipped"].items()} == {".txt": 1, ".cr2": 1}
    assert record["metrics"] == {
        "inspect/images": 28, "inspect/unreadable": 4, "inspect/duplicates": 3, "inspect/in_several_parts": 2,
    }  # fmt: skip
    assert "2 classes (train/test): cat 16/4, dog 5/3" in said
    assert "raw.CR2: a camera's raw file" in said


def test_what_images_are(report: tuple[dict[str, Any], str]) -> None:
    found = report[0]["provenance"]["report"]
    assert found["formats"] == {"JPEG": 12, "PNG": 11, "GIF": 1}
    assert found["pixels"] == {
        "RGB": 18, "RGB with alpha": 2, "CMYK": 1, "palette": 1, "grey of more than 8 bits": 1, "grey": 1,
    }  # fmt: skip
    assert found["sizes"] == {"smallest": "40x40", "median": "80x60", "largest": "80x60"}
    assert (found["turned_by_exif"], found["with_alpha"], found["transparent"]) == (1, 2, 1)
    assert {what: odd["names"] for what, odd in found["odd"].items()} == {
        "smaller than 32 pixels": ["train/cat/long.png"],
        "longer than 4 times their width or height": ["train/cat/long.png"],
        "of several pictures, of which the first is read": ["train/cat/anim.gif"],
        "of another format than their ending says, which is read all the same": ["train/dog/4.png"],
    }


def test_problems_are_told_apart_and_named(report: tuple[dict[str, Any], str], folder: Path) -> None:
    problems = report[0]["provenance"]["report"]["problems"]
    assert {status: [entry["name"] for entry in found["names"]] for status, found in problems.items()} == {
        "too large": [str(folder / "Train/cat/bomb.png")],
        "broken": [str(folder / "Train/cat/broken.jpg")],
        "empty": [str(folder / "Train/cat/empty.jpg")],
        "missing": [str(folder / "Train/cat/gone.jpg")],
    }


def test_equal_images_and_leaks(report: tuple[dict[str, Any], str]) -> None:
    record, said = report
    copies = record["provenance"]["report"]["duplicates"]
    leak, pixels = ["train/cat/0.jpg", "test/cat/leak.jpg"], ["train/dog/0.png", "test/dog/0.png"]
    twice = ["train/cat/1.jpg", "train/dog/4.png"]
    assert copies["same_bytes"]["names"] == [leak, twice] and copies["same_pixels"]["names"] == [pixels]
    assert copies["in_several_parts"]["names"] == [leak, pixels]
    assert copies["in_several_classes"]["names"] == [twice]
    assert "LEAK, images in more than one part: 2, such as train/cat/0.jpg, test/cat/leak.jpg" in said


def test_the_next_commands_can_be_run(report: tuple[dict[str, Any], str], folder: Path) -> None:
    words = f"--data.name folder --data.root '{folder}' --data.max-unreadable 0.2"
    assert report[0]["provenance"]["next"] == [
        f"siamtransfer pretrain {words}",
        f"siamtransfer knn CHECKPOINT {words} --data.unreadable skip",
    ]


def test_an_archive_has_the_report_of_its_tree(
    report: tuple[dict[str, Any], str], folder: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in sorted(folder.rglob("*.*")):
            if path.name != "gone.jpg":
                archive.write(path, path.relative_to(folder))
    record = inspect([str(tmp_path / "set.zip"), "--workers", "0"])
    assert record is not None
    ours, tree = record["provenance"]["report"], report[0]["provenance"]["report"]
    for key in ("formats", "pixels", "sizes", "turned_by_exif", "with_alpha", "transparent"):
        assert ours[key] == tree[key]
    assert ours["duplicates"]["same_bytes"] == tree["duplicates"]["same_bytes"]
    assert ours["parts"] == {"train": 20, "test": 7}


def test_folders_that_may_be_parts_are_described_all_the_same(tmp_path: Path) -> None:
    for name in ("train/cat", "bus"):
        (tmp_path / name).mkdir(parents=True)
        picture(40, 40).save(tmp_path / name / "1.png")
    record = inspect([str(tmp_path), "--quick"])
    assert record is not None
    assert "--data.parts none" in record["protocol"]["refused"] and record["protocol"]["name"] == "flat"
    assert record["metrics"] == {"inspect/images": 2}
    record = inspect([str(tmp_path), "--quick", "--data.parts", "none"])  # as the sentence says it
    assert record is not None and record["provenance"]["report"]["classes"] == {"bus": [1], "train": [1]}


def test_parts_without_class_folders_are_looked_at_for_leaks(tmp_path: Path) -> None:
    for name in ("train/cat", "test"):
        (tmp_path / name).mkdir(parents=True)
    picture(40, 40).save(tmp_path / "train/cat/1.png")
    shutil.copy(tmp_path / "train/cat/1.png", tmp_path / "test/x.png")
    record = inspect([str(tmp_path), "--workers", "0"])
    assert record is not None
    names = record["provenance"]["report"]["duplicates"]["in_several_parts"]["names"]
    assert names == [["train/cat/1.png", "test/x.png"]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "needs a folder or file of images"),
        (["/nowhere"], "/nowhere does not exist"),
        ([".", "--workers", "-1"], "--workers is a number of processes"),
        ([".", "--quick", "--out", "x.json"], "leave out --quick"),
        ([".", "--out", "/nowhere/x.json"], "the folder of /nowhere/x.json does not exist"),
        ([".", "--name", "flat", "--root", "."], "paths of a list begin"),
    ],
)
def test_mistakes(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        inspect(words)


def test_a_list_of_files_that_are_not_there_names_the_option_of_this_program(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("nowhere.png\n")
    with pytest.raises(UserError, match=r"nowhere\.png; --root is the folder in which the paths begin"):
        inspect([str(tmp_path / "list.txt")])


def test_the_overview_is_printed_once_and_for_own_images_only(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("siamtransfer").propagate = True
    caplog.set_level(logging.INFO, "siamtransfer")
    train, test = open_images("folder", root=folder), open_images("folder", root=folder, split="test")
    caplog.clear()
    say_overview(train, test)
    assert "images: 21 train, 7 test (folder)" in caplog.messages
    assert any(line.startswith("labels: from the names of the folders") for line in caplog.messages)
    caplog.clear()
    say_overview(train, test)
    say_overview(ArrayImages("cifar10", "train", np.zeros((2, 32, 32, 3), np.uint8)), None)
    assert not caplog.messages


def test_facts_of_a_turned_photograph(folder: Path) -> None:
    data = (folder / "Train/cat/turned.jpg").read_bytes()
    assert facts_of(data, "x") == ImageFacts("JPEG", height=80, width=60, pixels="RGB", turned=True)
