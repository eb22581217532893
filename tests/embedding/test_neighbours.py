"""`siamtransfer neighbours`: the nearest by cosine but the query itself; pictures with names of any kind."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.distance import cdist
from support.tables import rows_of

from siamtransfer.data import open_images
from siamtransfer.evaluation.dense.sheet import CELL
from siamtransfer.programs.neighbours import main as neighbours
from siamtransfer.utils.errors import UserError

NAMES = [
    "猫.png",
    "кот.png",
    "a,b.png",
    "new\nline.png",
    os.fsdecode(b"\xff.png"),
    "emoji 😀.png",
    "x" * 90 + ".png",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes in two classes, under names of all kinds, and a file that is no image."""
    root = tmp_path_factory.mktemp("neighbours") / "images"
    images = open_images("fashion-scenes", size=48, count=14)
    for number in range(14):
        name = NAMES[number] if number < len(NAMES) else f"{number}.png"
        path = root / ("ants", "дом")[number % 2] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images.image(number)).save(path)
    (root / "ants" / "broken.png").write_bytes(b"nothing")
    return root


def run(query: Path, images: Path, *words: object) -> dict[str, float]:
    record = neighbours(
        ["pixels", str(query), str(images), "--crop", "32", "--data.workers", "0", *map(str, words)]
    )
    assert record is not None
    metrics: dict[str, float] = record["metrics"]
    return metrics


def test_the_nearest_are_those_of_the_plain_cosine(folder: Path, tmp_path: Path):
    metrics = run(folder, folder, "--k", 5, "--out", tmp_path / "out.csv")
    rows = rows_of(tmp_path / "out.csv")
    assert (metrics["queries"], metrics["images"], metrics["unreadable"]) == (14, 14, 2)
    assert len(rows) == 14 * 5
    paths = sorted({row["query"] for row in rows})
    assert set(paths) == {str(path.relative_to(folder)) for path in folder.rglob("*.png")} - {
        "ants/broken.png"
    }
    x = np.stack([resized(folder / path) for path in paths])
    cosines = 1 - cdist(x, x, "cosine")
    np.fill_diagonal(cosines, -2)
    for index, path in enumerate(paths):
        found = [row for row in rows if row["query"] == path]
        assert [int(row["rank"]) for row in found] == [1, 2, 3, 4, 5]
        expected = np.sort(cosines[index])[::-1][:5]
        assert np.allclose([float(row["cosine"]) for row in found], expected, atol=2e-3)
        assert all(row["class"] == row["path"].split("/")[0] for row in found)


def resized(path: Path) -> np.ndarray:
    """The centre of 32 of an image at 37 pixels, as the evaluation transform has it."""
    image = Image.open(path).convert("RGB").resize((37, 37), Image.Resampling.BILINEAR)
    return np.asarray(image.crop((2, 2, 34, 34)), np.float64).ravel()


def test_a_file_that_is_the_query_is_not_its_neighbour(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    images = tmp_path / "images"
    shutil.copytree(folder, images)
    for number in range(10):
        shutil.copy(folder / "дом" / "кот.png", images / "дом" / f"again {number}.png")
    shutil.copy(folder / "дом" / "кот.png", tmp_path / "query.png")
    metrics = run(tmp_path / "query.png", images, "--k", 3, "--out", tmp_path / "out.csv")
    rows = rows_of(tmp_path / "out.csv")
    assert metrics["identical"] == 11
    assert len(rows) == 3
    assert not any("again" in row["path"] or "кот" in row["path"] for row in rows)
    assert float(rows[0]["cosine"]) < 1 - 1e-4


def test_a_picture_shows_names_of_any_script(folder: Path, tmp_path: Path):
    run(folder, folder, "--k", 13, "--picture", tmp_path / "grid.png", "--rows", 4)
    picture = np.asarray(Image.open(tmp_path / "grid.png"))
    assert picture.shape[0] > 4 * CELL
    assert picture.shape[1] > 14 * CELL


def test_fewer_images_than_k_are_all(folder: Path, tmp_path: Path):
    run(folder / "дом" / "кот.png", folder, "--k", 99, "--out", tmp_path / "out.csv")
    assert len(rows_of(tmp_path / "out.csv")) == 13


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--k", "0"], "--k is 0, but must be at least 1"),
        (["--out", "x.txt"], "must end in .csv"),
        (["--picture", "x.jpg"], "must end in .png"),
        (["--split", "nope"], "nope"),
    ],
)
def test_mistakes_are_said(words: list[str], said: str, folder: Path):
    with pytest.raises(UserError, match=said):
        run(folder / "дом" / "кот.png", folder, *words)


def test_what_is_missing_is_said(folder: Path, tmp_path: Path):
    with pytest.raises(UserError, match="needs a checkpoint, an image"):
        neighbours(["pixels"])
    with pytest.raises(UserError, match=r"needs a checkpoint .* and the images"):
        neighbours(["pixels", str(folder)])
    with pytest.raises(UserError, match="nowhere"):
        run(tmp_path / "nowhere.png", folder)
    with pytest.raises(UserError, match="none of the 1 images can be read"):
        run(folder / "ants" / "broken.png", folder)
    (tmp_path / "out.csv").write_text("mine")
    with pytest.raises(UserError, match="exists"):
        run(folder, folder, "--out", tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "mine"
