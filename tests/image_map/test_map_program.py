"""The program on small folders: what it writes is true of the images, and what cannot be done is said."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.pictures import write_parts

from siamtransfer.data.registry import open_images
from siamtransfer.evaluation.dense.sheet import in_colours
from siamtransfer.image_map.image_map import ImageMap
from siamtransfer.image_map.thumbnails import PER_SHEET, make_thumbnails, side_for
from siamtransfer.programs.map import main
from siamtransfer.utils.errors import UserError


def make(out: Path, root: Path, *options: str, name: str = "folder") -> tuple[ImageMap, dict[str, Any]]:
    """The map of raw pixels of a folder, and its record."""
    words = [
        "--data.name",
        name,
        "--data.root",
        str(root),
        "--data.workers",
        "0",
        "--cache",
        "none",
        *options,
    ]
    record = main(["pixels", str(out), "--device", "cpu", "--crop", "16", *words])
    assert record is not None
    return ImageMap.read(out), record


def squares(image_map: ImageMap) -> np.ndarray:
    """uint8[N,side,side,3], cut from the sheets."""
    thumbnails, cut = image_map.thumbnails, []
    for image in range(len(image_map)):
        sheet = np.asarray(Image.open(io.BytesIO(thumbnails.sheets[image // thumbnails.per_sheet])))
        row, column = divmod(image % thumbnails.per_sheet, thumbnails.columns)
        side = thumbnails.side
        cut.append(sheet[row * side : (row + 1) * side, column * side : (column + 1) * side])
    return np.stack(cut)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, shapes_folder: Path) -> tuple[ImageMap, dict[str, Any]]:
    """The map of the 40 shapes."""
    return make(tmp_path_factory.mktemp("map") / "map.npz", shapes_folder, "--side", "20")


def test_neighbours_are_those_of_a_full_sort(made: tuple[ImageMap, Any], shapes_folder: Path):
    image_map, _ = made
    images = open_images("folder", root=shapes_folder, split="train")
    crops = []
    for n in range(len(images)):
        pixels = Image.fromarray(images.image(n)).resize((22, 18), Image.Resampling.BILINEAR)
        crops.append(np.asarray(pixels)[1:17, 3:19].ravel() / 255)
    x = np.stack(crops)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    cosines = x @ x.T
    np.testing.assert_allclose(
        image_map.similarities, np.take_along_axis(cosines, image_map.neighbours.astype(int), 1), atol=0.02
    )
    np.fill_diagonal(cosines, -np.inf)
    assert (image_map.neighbours != np.arange(40)[:, None]).all()
    assert (np.diff(image_map.similarities, axis=1) <= 0).all()
    least = np.sort(cosines, axis=1)[:, -8]
    assert (image_map.similarities[:, -1] >= least - 0.02).all()


def test_thumbnails_are_the_images(made: tuple[ImageMap, Any], shapes_folder: Path):
    image_map, _ = made
    images = open_images("folder", root=shapes_folder, split="train")
    for n, square in enumerate(squares(image_map)):
        whole = images.image(n)[:, 2:22].astype(float)  # of 20 x 24 pixels
        blurred = [
            np.asarray(Image.fromarray(x.astype(np.uint8)).resize((5, 5), Image.Resampling.BOX))
            for x in (whole, square)
        ]
        np.testing.assert_allclose(blurred[0].astype(float), blurred[1].astype(float), atol=30)
        assert np.corrcoef(blurred[0].ravel(), blurred[1].ravel())[0, 1] > 0.95


def test_names_labels_and_record_are_of_the_set(made: tuple[ImageMap, Any], shapes_folder: Path):
    image_map, record = made
    assert [name.split("/")[0] for name in image_map.names] == [
        image_map.class_names[label] for label in image_map.labels
    ]
    assert all((shapes_folder / name).is_file() for name in image_map.names)
    assert record["metrics"]["map/images"] == 40
    assert 0 < record["metrics"]["map/neighbours_kept"] <= 100
    assert record["protocol"]["layout"]["method"] == "tsne"
    assert image_map.facts["set"]["fingerprint"] == record["provenance"]["fingerprint"]
    assert image_map.facts["backbone"]["backbone"] == "pixels"


def test_a_draw_is_some_of_the_images_by_the_seed(tmp_path: Path, shapes_folder: Path):
    drawn, record = make(tmp_path / "a.npz", shapes_folder, "--count", "12", "--seed", "3")
    again, _ = make(tmp_path / "b.npz", shapes_folder, "--count", "12", "--seed", "3")
    other, _ = make(tmp_path / "c.npz", shapes_folder, "--count", "12", "--seed", "4")
    assert len(drawn) == len(set(drawn.indices.tolist())) == 12
    assert drawn.digest == again.digest
    assert drawn.indices.tolist() != other.indices.tolist()
    whole = open_images("folder", root=shapes_folder, split="train")
    assert drawn.names == tuple(whole.relative_name(int(n)) for n in drawn.indices)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(drawn.labels, np.asarray(whole.labels)[drawn.indices])
    assert record["protocol"]["draw"] == "at random, every image alike"
    assert drawn.facts["set"]["images"] == record["protocol"]["images"] == 40


def test_three_images_without_labels_have_a_map(
    tmp_path: Path, shapes_folder: Path, capsys: pytest.CaptureFixture[str]
):
    for number in range(3):
        shutil.copy(shapes_folder / "upper" / f"{number:02}.png", tmp_path / f"{number}.png")
    image_map, record = make(tmp_path / "out" / "map.npz", tmp_path, name="flat")
    assert image_map.labels.tolist() == [-1] * 3
    assert image_map.neighbours.shape == (3, 2)
    said = capsys.readouterr().err
    assert (
        "remark: --neighbours 8 is more than 3 images have: 2 is taken" in said and "perplexity" not in said
    )
    assert image_map.facts["layout"]["method"] == "pca"
    assert "map/same_class" not in record["metrics"]


def test_the_test_part_is_taken_where_there_is_one(tmp_path: Path):
    write_parts(tmp_path / "set")
    image_map, record = make(tmp_path / "test.npz", tmp_path / "set", "--layout", "pca")
    assert len(image_map) == 20
    assert record["protocol"]["set"] == "folder/test"
    image_map, record = make(tmp_path / "train.npz", tmp_path / "set", "--layout", "pca", "--part", "train")
    assert len(image_map) == 40


def test_unreadable_images_end_it_or_are_left_out(tmp_path: Path, shapes_folder: Path):
    root = tmp_path / "set"
    shutil.copytree(shapes_folder, root)
    (root / "left" / "03.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing")
    with pytest.raises(UserError, match=r"left/03\.png"):
        make(tmp_path / "a.npz", root, "--layout", "pca")
    assert not (tmp_path / "a.npz").exists()
    skip = ("--data.unreadable", "skip", "--layout", "pca")
    image_map, record = make(tmp_path / "b.npz", root, *skip)
    assert len(image_map) == 39
    assert record["protocol"]["unreadable"]["train"]["images"] == 1
    assert not any(name.endswith("left/03.png") for name in image_map.names)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["pixels"], "the file to write"),
        (["pixels", "map.html"], r"must end in \.npz"),
        (["pixels", "map.npz", "--count", "0"], "--count"),
        (["pixels", "map.npz", "--count", "60000"], "at most 50000"),
        (["pixels", "map.npz", "--side", "4"], "--side 4"),
        (["pixels", "map.npz", "--perplexity", "1"], "--perplexity"),
        (["pixels", "map.npz", "--neighbours", "0"], "--neighbours"),
        (["pixels", "map.npz", "--record", "map.json"], "has the name of the map"),
        (["pixels", "map.npz", "--train-features", "a.npz", "--test-features", "b.npz"], "hold no images"),
        (["pixels", "map.npz", "--layout", "umap"], "layout"),
    ],
)
def test_wrong_options_are_one_sentence(options: list[str], message: str, tmp_path: Path, monkeypatch: Any):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        main(options)
    assert list(tmp_path.iterdir()) == []


def test_a_map_is_not_replaced_unless_asked(tmp_path: Path, shapes_folder: Path):
    make(tmp_path / "map.npz", shapes_folder, "--layout", "pca")
    with pytest.raises(UserError, match="--force"):
        make(tmp_path / "map.npz", shapes_folder, "--layout", "pca")
    make(tmp_path / "map.npz", shapes_folder, "--layout", "pca", "--force")


def test_a_set_without_a_test_part_says_so(tmp_path: Path, shapes_folder: Path):
    with pytest.raises(UserError, match="no test part"):
        make(tmp_path / "map.npz", shapes_folder, "--part", "test")


def test_thumbnails_that_take_too_much_are_halved(shapes_folder: Path, monkeypatch: pytest.MonkeyPatch):
    images = open_images("folder", root=shapes_folder, split="train")
    whole = make_thumbnails(images, 64)
    monkeypatch.setattr("siamtransfer.image_map.thumbnails.MOST_BYTES", len(whole.sheets[0]) // 4)
    halved = make_thumbnails(images)
    assert halved.side in (64, 32, 16)
    assert sum(map(len, halved.sheets)) <= len(whole.sheets[0]) // 4
    large, small = (np.asarray(Image.open(io.BytesIO(each.sheets[0]))) for each in (whole, halved))
    cut = large[:64, :64].reshape(halved.side, 64 // halved.side, halved.side, -1, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(small[: halved.side, : halved.side].mean(axis=2), cut.mean(axis=2), atol=40)
    assert make_thumbnails(images, 64).side == 64  # as asked for


class Grey:
    """Images of one channel, more than a sheet holds."""

    name, split, classes, labels, image_size, channels = "grey", "train", (), None, 2, 1

    def __len__(self) -> int:
        return PER_SHEET + 3

    def image(self, index: int) -> np.ndarray:
        return np.full((2, 2, 1), index % 251, np.uint8)


def test_many_images_of_one_channel_fill_several_sheets():
    thumbnails = make_thumbnails(Grey(), side=16)  # type: ignore[arg-type]
    assert len(thumbnails.sheets) == 2
    last = np.asarray(Image.open(io.BytesIO(thumbnails.sheets[1])))
    for number in range(3):
        square = last[:16, number * 16 : number * 16 + 16]
        np.testing.assert_allclose(square[4:12, 4:12], (PER_SHEET + number) % 251, atol=8)
    assert make_thumbnails(Grey()).side == 2  # type: ignore[arg-type]
    assert in_colours(Grey().image(0)).shape == (2, 2, 3)
    assert side_for(10) > side_for(10_000) >= 24
