"""Lists of images in a text file: paths, labels, ImageNet's bare names, and what is wrong with a list."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from siamtransfer.data.lists import ListedImages
from siamtransfer.utils.errors import UserError


def paint(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path, "PNG")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Some images below tmp_path/images, and n01… ones in the layout of ImageNet."""
    for name in ("a.png", "b/c.png", "b/two words.jpg", "x.jpg y.jpg"):
        paint(tmp_path / "images" / name)
    for name in (
        "n01440764/n01440764_10026.JPEG",
        "n01443537/n01443537_2.JPEG",
        "n01484850/n01484850_7.JPEG",
    ):
        paint(tmp_path / "images/train" / name)
    return tmp_path / "images"


def write(root: Path, text: str | bytes) -> Path:
    path = root / "list.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def names(images: ListedImages, root: Path) -> list[str]:
    return [str(Path(images.describe(index)).relative_to(root)) for index in range(len(images))]


def test_order_spaces_comments_and_absolute_paths(root: Path) -> None:
    text = "\ufeff# a comment\r\n\r\nb/two words.jpg\r\n./a.png\nx.jpg y.jpg\n  b//c.png  \n"
    text += f"{root}/train/n01443537/n01443537_2.JPEG"
    images = ListedImages(write(root, text), root)
    assert names(images, root) == [
        "b/two words.jpg", "a.png", "x.jpg y.jpg", "b/c.png", "train/n01443537/n01443537_2.JPEG",
    ]  # fmt: skip
    assert images.labels is None and images.classes == () and images.image(2).shape == (4, 4, 3)
    assert (images.name, images.split) == ("list", "train")


def test_paths_begin_in_the_lists_own_folder_by_default(root: Path, tmp_path: Path) -> None:
    assert names(ListedImages(write(root, "a.png")), root) == ["a.png"]
    outside = ListedImages(write(tmp_path, f"{root}/a.png\nimages/b/c.png"))
    assert names(outside, root) == ["a.png", "b/c.png"]


def test_integer_labels_are_taken_as_they_are(root: Path) -> None:
    images = ListedImages(write(root, "b/c.png 3\na.png\t0\nb/two words.jpg  10"), root)
    assert images.labels is not None and images.labels.tolist() == [3, 0, 10]
    assert images.labels.dtype == np.int64 and images.classes == tuple(map(str, range(11)))


def test_numbers_without_images_are_remarked(root: Path) -> None:
    images = ListedImages(write(root, "b/c.png 3\na.png\t1\nb/two words.jpg  1"), root)
    assert "2 of these 4 classes have no image (0, 2)" in images.set_remarks[0]


def test_numbers_with_zeros_before_them_are_names(root: Path) -> None:
    images = ListedImages(write(root, "b/c.png 010\na.png\t002\nb/two words.jpg  2"), root)
    assert images.labels is not None and images.labels.tolist() == [1, 0, 2]
    assert images.classes == ("002", "010", "2") and "002 and 2" in images.set_remarks[0]


def test_named_labels_are_numbered_in_sorted_order(root: Path) -> None:
    images = ListedImages(write(root, "b/c.png great dane\na.png cat\nb/two words.jpg cat"), root)
    assert images.labels is not None and images.labels.tolist() == [1, 0, 0]
    assert images.classes == ("cat", "great dane")


@pytest.mark.parametrize(
    "form",
    ["n01484850_7.JPEG\nn01440764_10026.JPEG", "n01484850/n01484850_7.JPEG\nn01440764/n01440764_10026.JPEG"],
)
@pytest.mark.parametrize("inside", ["", "train"])
def test_imagenets_subsets_find_folder_and_label_by_themselves(form: str, inside: str, root: Path) -> None:
    images = ListedImages(write(root, form), root / inside, name="imagenet")
    assert names(images, root) == ["train/n01484850/n01484850_7.JPEG", "train/n01440764/n01440764_10026.JPEG"]
    assert images.classes == ("n01440764", "n01443537", "n01484850")  # all of the set, not of the list alone
    assert images.labels is not None and images.labels.tolist() == [2, 0]


def test_imagenet_names_with_labels_keep_the_labels(root: Path) -> None:
    images = ListedImages(write(root, "n01484850_7.JPEG 5"), root)
    assert images.labels is not None and images.labels.tolist() == [5]
    assert names(images, root) == ["train/n01484850/n01484850_7.JPEG"]


def test_fingerprint(root: Path, tmp_path: Path) -> None:
    def fingerprint(text: str, at: Path = root) -> str:
        return ListedImages(write(at, text), at).fingerprint

    base = fingerprint("a.png 0\nb/c.png 1")
    assert base == fingerprint("# the same\n\n./a.png 0\nb/c.png   1\n")
    assert base == fingerprint(f"{root}/a.png 0\nb/c.png 1")
    copied = tmp_path / "copy"
    for name in ("a.png", "b/c.png"):
        paint(copied / name)
    assert base == fingerprint("a.png 0\nb/c.png 1", copied)
    others = ["b/c.png 1\na.png 0", "a.png 1\nb/c.png 0", "a.png\nb/c.png", "a.png 0", "a.png 0\nb/c.png 2"]
    assert len({base, *map(fingerprint, others)}) == 6


MISTAKES: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "is empty; it has the path of one image on each line"),
    "comments only": ("# nothing\n\n", "is empty"),
    "not text": (b"\x89PNG\r\n\x1a\n\0\0\0", "is not a text file"),
    "missing files": ("a.png\ngone.png\nnot here.png", r"2 of the 3 files .* line 2, .*/gone\.png; --data"),
    "very long line": ("x" * 5000, "1 of the 1 files in .* are missing"),
    "twice": ("a.png\nb/c.png\n./a.png", r"1 files more than once \(a\.png 2 times, in lines 1 and 3\)"),
    "twice with other labels": ("a.png 0\na.png 1", "more than once"),
    "labels for some": ("a.png 1\n\nb/c.png", "line 3 of .* has no label although 1 other"),
    "absurd label": ("a.png 99999999999", "has the label 99999999999"),
    "class unknown to the set": ("n99999999_1.JPEG", r"missing, first that of line 1, .*n99999999_1\.JPEG"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_sentence(mistake: str, root: Path) -> None:
    text, message = MISTAKES[mistake]
    with pytest.raises(UserError, match=message) as caught:
        ListedImages(write(root, text), root)
    assert "\n" not in str(caught.value)


def test_a_list_that_is_not_there(root: Path) -> None:
    for wrong in (root / "gone.txt", root):
        with pytest.raises(UserError, match=r"cannot read the list .*--data\.list_file"):
            ListedImages(wrong, root)
    with pytest.raises(UserError, match="does not exist"):
        ListedImages(write(root, "a.png"), root / "gone")
