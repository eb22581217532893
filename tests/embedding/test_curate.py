"""`siamtransfer curate`: every planted copy is found and little else; the lists are what `pretrain` reads."""

from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from scipy.spatial.distance import cdist
from support.tables import rows_of

from siamtransfer.data import open_images
from siamtransfer.embedding.curate.coreset import choose
from siamtransfer.embedding.curate.lists import write_list
from siamtransfer.embedding.curate.outliers import find_outliers
from siamtransfer.embedding.curate.same_picture import compare, thumbnail
from siamtransfer.embedding.tables.table import Row
from siamtransfer.programs.curate import main as curate
from siamtransfer.utils.errors import UserError

SCENES, SIZE = 16, 96


def saved_as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def cut(image: Image.Image, left: int, top: int, right: int, bottom: int) -> Image.Image:
    return image.crop((left, top, image.width - right, image.height - bottom))


COPIES = {
    "same": lambda image: image,
    "smaller": lambda image: image.resize((48, 48), Image.Resampling.LANCZOS),
    "larger": lambda image: image.resize((150, 150), Image.Resampling.BICUBIC),
    "flatter": lambda image: image.resize((120, 80), Image.Resampling.BICUBIC),
    "jpeg": lambda image: saved_as_jpeg(image, 40),
    "mirrored": ImageOps.mirror,
    "cut": lambda image: cut(image, 5, 2, 0, 6),
    "all": lambda image: saved_as_jpeg(ImageOps.mirror(cut(image, 4, 0, 5, 3)).resize((70, 74)), 70),
}


@pytest.fixture(scope="module")
def scenes() -> list[Image.Image]:
    images = open_images("fashion-scenes", size=SIZE, count=SCENES)
    return [Image.fromarray(images.image(index)) for index in range(SCENES)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, scenes: list[Image.Image]) -> Path:
    """Two classes of scenes, a copy of each kind of eight of them, and a file that is no image."""
    root = tmp_path_factory.mktemp("curated") / "images"
    for name in ("ants", "bees"):
        (root / name).mkdir(parents=True)
    for number, scene in enumerate(scenes):
        scene.save(root / ("ants", "bees")[number % 2] / f"{number:02d}.png")
    for number, (name, make) in enumerate(COPIES.items()):
        make(scenes[number]).save(root / "bees" / f"copy {name}.png")
    (root / "ants" / "broken.jpg").write_bytes(b"nothing")
    return root


def run(images: Path, out: Path, *words: object) -> dict[str, float]:
    record = curate(
        ["pixels", str(images), str(out), "--crop", "32", "--data.workers", "0", *map(str, words)]
    )
    assert record is not None
    metrics: dict[str, float] = record["metrics"]
    return metrics


@pytest.fixture(scope="module")
def curated(folder: Path) -> tuple[Path, dict[str, float]]:
    out = folder.parent / "out"
    return out, run(folder, out, "--coreset", 5)


def test_every_planted_copy_is_found_and_nothing_else(curated: tuple[Path, dict[str, float]]):
    out, metrics = curated
    groups: dict[str, list[dict[str, str]]] = {}
    for row in rows_of(out / "duplicates.csv"):
        groups.setdefault(row["group"], []).append(row)
    assert len(groups) == len(COPIES)
    kinds = {}
    for number, name in enumerate(COPIES):
        original = f"{('ants', 'bees')[number % 2]}/{number:02d}.png"
        copy = f"bees/copy {name}.png"
        (pair,) = [rows for rows in groups.values() if copy in {row["path"] for row in rows}]
        assert {row["path"] for row in pair} == {original, copy}
        assert pair[0]["kept"] == "yes" and pair[0]["copy_of"] == ""
        assert pair[1]["kept"] == "no" and pair[1]["copy_of"] == pair[0]["path"]
        first, second = ((int(row["width"]) * int(row["height"]), int(row["bytes"])) for row in pair)
        assert first >= second
        kinds[name] = pair[1]["kind"]
    assert kinds == dict.fromkeys(COPIES, "same-picture") | {
        "same": "same-file", "mirrored": "mirrored", "all": "mirrored"
    }  # fmt: skip
    assert metrics["images"] == SCENES + len(COPIES) and metrics["unreadable"] == 1
    assert metrics["duplicates"] == metrics["duplicates/groups"] == len(COPIES)
    assert (metrics["duplicates/same-file"], metrics["duplicates/mirrored"]) == (1, 2)
    assert metrics["duplicates/groups-of-several-classes"] == len(COPIES) / 2


def test_the_lists_are_read_by_their_folder_with_classes(
    curated: tuple[Path, dict[str, float]], folder: Path
):
    out, metrics = curated
    kept = open_images("list", list_file=out / "kept.txt", root=folder)
    assert len(kept) == SCENES == metrics["kept"]
    assert kept.classes == ("ants", "bees")
    assert kept.labels is not None
    for index, label in enumerate(kept.labels.tolist()):
        assert Path(kept.describe(index)).parent.name == kept.classes[label]
        assert kept.image(index).ndim == 3
    chosen = open_images("list", list_file=out / "coreset.txt", root=folder)
    assert len(chosen) == 5
    names = {kept.describe(index) for index in range(len(kept))}
    assert {chosen.describe(index) for index in range(5)} <= names
    record = json.loads((out / "record.json").read_text())
    assert record["metrics"] == metrics
    assert record["protocol"]["pixel_check"]["similarity"] == 0.965


def test_images_in_train_and_test_are_named_and_not_kept(folder: Path, tmp_path: Path):
    """A leaked image takes its group with it, even where only its copy is in the test set."""
    test = tmp_path / "test"
    test.mkdir()
    shutil.copy(folder / "bees" / "copy smaller.png", test / "a.png")
    Image.open(folder / "ants" / "10.png").resize((60, 60)).save(test / "b.jpg")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 50, 3), np.uint8)).save(test / "c.png")
    metrics = run(folder, tmp_path / "out", "--against", test)
    leaks = {(row["path"], row["test_path"], row["kind"]) for row in rows_of(tmp_path / "out" / "leaks.csv")}
    assert leaks == {
        ("bees/copy smaller.png", "a.png", "same-file"),
        ("bees/01.png", "a.png", "same-picture"),
        ("ants/10.png", "b.jpg", "same-picture"),
    }
    assert (metrics["leaks"], metrics["leaks/test-images"]) == (3, 2)
    kept = (tmp_path / "out" / "kept.txt").read_text()
    assert metrics["kept"] == SCENES - 2
    assert all(name not in kept for name in ("ants/10.png", "bees/01.png", "copy smaller"))


def test_a_folder_with_two_splits_is_compared_with_itself(scenes: list[Image.Image], tmp_path: Path):
    for split, numbers in (("train", (0, 1, 2, 3)), ("val", (3, 4))):
        (tmp_path / "set" / split / "x").mkdir(parents=True)
        for number in numbers:
            scenes[number].save(tmp_path / "set" / split / "x" / f"{number}.png")
    metrics = run(tmp_path / "set", tmp_path / "out")
    assert (metrics["images"], metrics["leaks"], metrics["kept"]) == (4, 1, 3)


@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_images_are_kept(count: int, scenes: list[Image.Image], tmp_path: Path):
    (tmp_path / "few").mkdir()
    for number in range(count):
        scenes[number].save(tmp_path / "few" / f"{number}.png")
    metrics = run(tmp_path / "few", tmp_path / "out", "--coreset", count)
    assert (metrics["kept"], metrics["duplicates"], metrics["outliers"]) == (count, 0, 0)
    assert sorted((tmp_path / "out" / "coreset.txt").read_text().split()) == [
        f"{n}.png" for n in range(count)
    ]
    assert rows_of(tmp_path / "out" / "duplicates.csv") == []


def test_outliers_are_dropped_only_where_asked(scenes: list[Image.Image], tmp_path: Path):
    (tmp_path / "set").mkdir()
    grey = np.full((60, 60, 3), 90, np.uint8)
    for number in range(9):
        grey[:, 6 * number : 6 * number + 6] += np.uint8(8 * number)
        Image.fromarray(grey + np.uint8(number)).save(tmp_path / "set" / f"{number}.png")
    Image.fromarray(np.tile(np.eye(60, dtype=np.uint8)[..., None] * 255, 3)).save(tmp_path / "set" / "x.png")
    words = ("--outlier-share", 0.05, "--no-pixel-check", "--min-cosine", 1)
    metrics = run(tmp_path / "set", tmp_path / "out", *words)
    (row,) = rows_of(tmp_path / "out" / "outliers.csv")
    assert row["path"] == "x.png" and row["nearest"].endswith(".png")
    assert "x.png" in (tmp_path / "out" / "kept.txt").read_text()
    fewer = run(tmp_path / "set", tmp_path / "fewer", *words, "--drop-outliers")
    assert "x.png" not in (tmp_path / "fewer" / "kept.txt").read_text()
    assert fewer["kept"] == metrics["kept"] - 1


def test_without_pixels_a_cosine_decides(folder: Path, tmp_path: Path):
    metrics = run(folder, tmp_path / "out", "--no-pixel-check", "--min-cosine", 0.9999)
    kinds = {row["kind"] for row in rows_of(tmp_path / "out" / "duplicates.csv")}
    assert kinds == {"", "same-file", "near"}
    assert metrics["duplicates"] >= 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--no-pixel-check"], "say which with --min-cosine"),
        (["--coreset", "99"], "--coreset 99 is more than the 25 images"),
        (["--outlier-share", "0"], "--outlier-share is 0.0, but must be above 0"),
        (["--min-cosine", "2"], "--min-cosine is 2.0, but must be from -1 to 1"),
        (["--force"], "curate writes a folder"),
        (["--data.name", "cifar10"], "leave --data.name out"),
        (["--against", "/nowhere"], "/nowhere"),
    ],
)
def test_mistakes_are_said_and_nothing_is_written(words: list[str], said: str, folder: Path, tmp_path: Path):
    with pytest.raises(UserError, match=said):
        run(folder, tmp_path / "out", *words)
    assert not (tmp_path / "out").exists()


def test_the_folder_to_write_is_new_and_elsewhere(folder: Path, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is not empty"):
        run(folder, tmp_path)
    with pytest.raises(UserError, match="is a file"):
        run(folder, tmp_path / "file")
    with pytest.raises(UserError, match="lies among the images"):
        run(folder, folder / "out")


def test_lists_hold_names_of_all_kinds_but_line_breaks(tmp_path: Path):
    names = ["# one.png", " two.png", "a b.png c.jpg", "猫.png", os.fsdecode(b"\xff.png"), 'q"uo,te.png']
    for name in [*names, "new\nline.png"]:
        Image.new("RGB", (4, 4)).save(tmp_path / name, format="PNG")
    rows = [Row(index, name, 4, 4) for index, name in enumerate([*names, "new\nline.png"])]
    assert write_list(tmp_path / "list.txt", rows, classes=False) == ["new\nline.png"]
    images = open_images("list", list_file=tmp_path / "list.txt", root=tmp_path)
    assert [images.relative_name(index) for index in range(len(images))] == names  # type: ignore[attr-defined]


def test_pictures_that_differ_in_a_part_or_in_colour_are_two(scenes: list[Image.Image]):
    scene = np.array(scenes[0])
    part = scene.copy()
    part[:24, :24] = 255 - part[:24, :24]
    others = [part, scene[..., [2, 0, 1]], np.rot90(scene), np.full_like(scene, 128), np.array(scenes[1])]
    first = thumbnail(scene)[None].expand(len(others), -1, -1, -1)
    assert not compare(first, torch.stack([thumbnail(other.copy()) for other in others])).same.any()
    assert bool(compare(first[:1], first[:1]).same.all())


def test_pictures_of_one_colour_are_as_different_as_what_they_show():
    base = np.array([60, 190, 30])
    noise = np.random.default_rng(0).normal(0, 8, (2, 6, 6, 1))
    leaves = [Image.fromarray((base + each).astype(np.uint8)).resize((96, 96)) for each in noise]
    pictures = [thumbnail(np.array(leaf)) for leaf in leaves]
    copy = thumbnail(np.array(saved_as_jpeg(leaves[0], 30)))
    found = compare(torch.stack([pictures[0]] * 2), torch.stack([pictures[1], copy]))
    assert found.same.tolist() == [False, True]


def test_no_list_is_left_where_one_of_them_cannot_be_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(path: Path, *_: object) -> None:
        raise UserError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr("siamtransfer.embedding.curate.evaluate.write_csv", full)
    words = ["pixels", str(folder), str(tmp_path / "out"), "--crop", "16", "--data.workers", "0"]
    with pytest.raises(UserError, match=r"duplicates\.csv: No space left"):
        curate([*words, "--no-pixel-check", "--min-cosine", "1"])
    assert list((tmp_path / "out").iterdir()) == []


def test_a_thumbnail_is_the_mean_over_areas():
    image = np.random.default_rng(0).integers(0, 256, (128, 192, 3), np.uint8)
    mean = image.reshape(64, 2, 64, 3, 3).mean(axis=(1, 3)).transpose(2, 0, 1)
    assert np.abs(thumbnail(image).numpy() - mean).max() <= 0.5 + 1e-3
    assert thumbnail(np.zeros((5, 1, 13), np.uint8)).shape == (3, 64, 64)


def test_outliers_are_those_far_from_their_kth_neighbour():
    rng = np.random.default_rng(3)
    near = rng.normal((10, 0, 0, 0), 0.3, (60, 4))
    x = np.concatenate([near, [[0, 10, 0, 0], [0, 0, -10, 0]]])
    found = find_outliers(torch.tensor(x, dtype=torch.float32), 3, None)
    expected = np.sort(cdist(x, x, "cosine"), axis=1)[:, 3]
    assert np.allclose(found.distances, expected, atol=1e-6)
    assert {60, 61} <= set(found.rows.tolist()) and len(found.rows) < 8
    share = find_outliers(torch.tensor(x, dtype=torch.float32), 3, 0.03)
    assert set(share.rows.tolist()) == {60, 61}
    assert find_outliers(torch.eye(3), 5, None).k == 2


def test_a_coreset_has_an_image_of_every_cluster():
    rng = np.random.default_rng(1)
    centres = np.eye(6) * 10
    x = torch.tensor(np.repeat(centres, 20, axis=0) + rng.normal(0, 0.4, (120, 6)), dtype=torch.float32)
    for method in ("facility", "centre"):
        chosen = choose(x, 6, method)  # type: ignore[arg-type]
        assert sorted(row // 20 for row in chosen.rows) == list(range(6))
        unit = torch.nn.functional.normalize(x, dim=1)
        assert torch.allclose(chosen.nearest, (unit @ unit[chosen.rows].T).amax(dim=1), atol=1e-6)


def test_the_lazy_choice_is_the_plain_greedy_one():
    x = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    unit = torch.nn.functional.normalize(x, dim=1).double()
    cosines, nearest, rows = unit @ unit.T, torch.full((40,), -1.0, dtype=torch.float64), []
    for _ in range(8):
        gains = (cosines - nearest[:, None]).clamp_min(0).sum(dim=0)
        rows.append(int(gains.argmax()))
        nearest = torch.maximum(nearest, cosines[:, rows[-1]])
    assert choose(x, 8, "facility").rows == rows
    assert sorted(choose(x, 40, "facility").rows) == list(range(40))
    assert sorted(choose(x, 40, "centre").rows) == list(range(40))
