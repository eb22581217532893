"""ImageNet-V2, -R, -A, -Sketch and -C in the layouts of their archives."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from siamtransfer.data import open_images, open_labelled
from siamtransfer.data.shifted_sets import CLASSES, corruptions_in
from siamtransfer.utils.errors import UserError


def fill(root: Path, folders: Iterable[str], file: str = "image.JPEG") -> None:
    """One picture in each folder, whose red says which it is."""
    for number, folder in enumerate(folders):
        (root / folder).mkdir(parents=True)
        Image.new("RGB", (4, 4), (number % 256, 0, 0)).save(root / folder / file, "PNG")


@pytest.fixture
def few_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets of 12 and of 5 classes, which are on the disk sooner than those of 1000 and 200."""
    assert CLASSES == {"imagenet-v2": 1000, "imagenet-r": 200, "imagenet-a": 200, "imagenet-sketch": 1000}
    for name, count in CLASSES.items():
        monkeypatch.setitem(CLASSES, name, 12 if count == 1000 else 5)


def wordnet(count: int) -> list[str]:
    return [f"n{1440764 + 3 * number:08d}" for number in range(count)]


@pytest.mark.usefixtures("few_classes")
def test_numbers_of_imagenet_v2_are_labels_in_the_order_of_numbers(tmp_path: Path) -> None:
    fill(tmp_path, map(str, range(12)))
    images = open_images("imagenet-v2", root=tmp_path, split="test")
    assert images.labels is not None and images.classes == tuple(map(str, range(12)))
    assert sorted(images.labels.tolist()) == list(range(12))
    for index in (1, 5, 11):  # as text, 10 stands before 2
        assert images.image(index)[0, 0, 0] == images.labels[index] % 256
    (tmp_path / "7" / "image.JPEG").unlink()
    with pytest.raises(UserError, match=r"imagenet-v2 has images in its class folders .* \(7\)"):
        open_images("imagenet-v2", root=tmp_path, split="test")
    with pytest.raises(UserError, match=r"data.split: imagenet-v2 has no split 'train'; choose from test"):
        open_labelled("imagenet-v2", root=tmp_path)


@pytest.mark.usefixtures("few_classes")
@pytest.mark.parametrize("name", ["imagenet-r", "imagenet-a"])
def test_sets_of_a_part_of_the_classes(name: str, tmp_path: Path) -> None:
    (tmp_path / "README.txt").write_text("about")
    fill(tmp_path, wordnet(5))
    images = open_images(name, root=tmp_path, split="test")
    assert images.labels is not None
    assert (len(images), images.classes) == (5, tuple(wordnet(5)))
    assert images.labels.tolist() == list(range(5))
    fill(tmp_path, ["cat"])
    with pytest.raises(UserError, match=rf"{name} has images in its class folders alone .*\(cat\)"):
        open_images(name, root=tmp_path, split="test")


def test_a_folder_that_is_none_of_these_sets_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, wordnet(3))
    with pytest.raises(UserError, match=r"imagenet-sketch has 1000 class folders, .* holds 3 of these"):
        open_images("imagenet-sketch", root=tmp_path, split="test")
    with pytest.raises(UserError, match=r"named 0 to 999, .* holds 0 of these, and others"):
        open_images("imagenet-v2", root=tmp_path, split="test")
    with pytest.raises(UserError, match="there is no corruption of imagenet-c"):
        corruptions_in(tmp_path)


def test_corruptions_lie_below_their_archive_or_not(tmp_path: Path) -> None:
    fill(tmp_path, ["weather/fog/3/n01440764", "weather/fog/3/n01443537", "jpeg_compression/1/n01440764"])
    assert corruptions_in(tmp_path) == ["fog", "jpeg_compression"]
    fog = open_images("imagenet-c", root=tmp_path, split="fog/3")
    assert fog.labels is not None and fog.classes == ("n01440764", "n01443537")
    assert (fog.split, fog.labels.tolist()) == ("fog/3", [0, 1])
    np.testing.assert_array_equal(fog.image(1)[0, 0], [1, 0, 0])
    assert len(open_images("imagenet-c", root=tmp_path, split="jpeg_compression/1")) == 1
    for split in ("fog/4", "fog", "snow/1", "fog/"):
        with pytest.raises(UserError, match=f"imagenet-c in .* has no {split}: its folders are such as"):
            open_images("imagenet-c", root=tmp_path, split=split)
