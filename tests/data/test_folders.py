"""Class-folder trees and flat folders: order, labels, fingerprints, links, odd names, clear errors."""

from __future__ import annotations

import os
import pickle
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from siamtransfer.data import folders
from siamtransfer.data.folders import ClassFolder, FileImages, FlatFolder
from siamtransfer.data.imageset import ArrayImages, content_fingerprint
from siamtransfer.data.listing import PathTable, list_images
from siamtransfer.data.pixel_form import PixelForm
from siamtransfer.data.subset import Subset
from siamtransfer.data.unreadable import UnreadableImage
from siamtransfer.utils.errors import UserError


def paint(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.full((6, 5, 3), value, np.uint8))
    image.save(path, "PNG" if path.suffix.lower() not in (".jpg", ".jpeg") else "JPEG")


def tree(root: Path, names: list[str]) -> Path:
    for value, name in enumerate(names):
        paint(root / name, value)
    return root


def described(images: FileImages, root: Path) -> list[str]:
    return [str(Path(images.describe(index)).relative_to(root)) for index in range(len(images))]


IMAGENET = [
    "train/n01440764/n01440764_10026.JPEG",
    "train/n01440764/n01440764_100.JPEG",
    "train/n01443537/n01443537_2.JPEG",
    "val/n01440764/ILSVRC2012_val_00000293.JPEG",
    "val/n01443537/ILSVRC2012_val_00000236.JPEG",
]


def test_imagenets_layout(tmp_path: Path) -> None:
    root = tree(tmp_path, IMAGENET)
    train, val = ClassFolder(root, "train"), ClassFolder(root, "val")
    assert described(train, root) == sorted(IMAGENET[:3])
    assert train.labels is not None and train.labels.tolist() == [0, 0, 1] and train.labels.dtype == np.int64
    assert train.classes == val.classes == ("n01440764", "n01443537")
    assert (len(val), val.split, train.split, train.image_size) == (2, "val", "train", None)
    assert ClassFolder(root, "test").split == "val"  # ImageNet's labelled images for testing
    assert train.image(0).shape == (6, 5, 3)


def test_images_and_labels_are_those_of_torchvisions_image_folder(tmp_path: Path) -> None:
    dice = random.Random(0)
    names = [f"{c}/{dice.randrange(10**6)}.png" for c in ("b", "a", "a-b", "Z", "é", "a b") for _ in range(5)]
    names += ["a/deeper/x.png", "a/deeper/still/y.PNG"]
    root = tree(tmp_path, names)
    ours, theirs = ClassFolder(root), ImageFolder(str(root))
    assert list(ours.classes) == theirs.classes and ours.labels is not None
    expected = {str(path): label for path, label in theirs.samples}
    assert {ours.describe(i): int(ours.labels[i]) for i in range(len(ours))} == expected
    assert ours.labels.tolist() == sorted(ours.labels)


def test_order_and_fingerprint_do_not_depend_on_place_or_order_of_creation(tmp_path: Path) -> None:
    names = [f"{c}/{i:03d} ü.png" for c in ("cat", "dog", "zoo") for i in range(20)]
    one, two = tree(tmp_path / "one", names), tmp_path / "elsewhere" / "two"
    for name in random.Random(1).sample(names, len(names)):
        (two / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(one / name, two / name)
    for kind in (ClassFolder, FlatFolder):
        first, second = kind(one), kind(two)
        assert described(first, one) == described(second, two) == sorted(names)
        assert first.fingerprint == second.fingerprint and len(first.fingerprint) == 64
        assert [first.image(i).tobytes() for i in range(60)] == [second.image(i).tobytes() for i in range(60)]
    assert ClassFolder(one).fingerprint != FlatFolder(one).fingerprint


def test_the_order_of_the_file_system_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(tmp_path, [f"{c}/{d}/{i}.png" for c in "abcd" for d in "xy" for i in range(4)])
    expected, flat = described(ClassFolder(root), root), described(FlatFolder(root), root)
    scandir = os.scandir

    class Backwards:
        def __init__(self, path: str):
            with scandir(path) as entries:
                self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __enter__(self) -> list[os.DirEntry[str]]:
            return self.entries

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Backwards)
    assert described(ClassFolder(root), root) == expected == flat == described(FlatFolder(root), root)


@pytest.mark.parametrize("change", ["add", "remove", "rename", "move", "resize"])
def test_every_change_of_the_files_changes_the_fingerprint(change: str, tmp_path: Path) -> None:
    root = tree(tmp_path, ["a/1.png", "a/2.png", "b/3.png"])
    before = ClassFolder(root).fingerprint, FlatFolder(root).fingerprint
    victim = root / "a/1.png"
    if change == "add":
        paint(root / "b/4.png")
    elif change == "remove":
        victim.unlink()
    elif change == "rename":
        victim.rename(root / "a/0.png")
    elif change == "move":
        victim.rename(root / "b/1.png")
    else:
        victim.write_bytes(victim.read_bytes() + b"\0")
    after = ClassFolder(root).fingerprint, FlatFolder(root).fingerprint
    assert before[0] != after[0] and before[1] != after[1]


def test_flat_folders_nested_and_in_a_class_tree(tmp_path: Path) -> None:
    root = tree(tmp_path, ["b.jpg", "2019/a.JPG", "2019/trip/c.Png", "a.jpg", "-.webp"])
    images = FlatFolder(root)
    assert described(images, root) == ["-.webp", "2019/a.JPG", "2019/trip/c.Png", "a.jpg", "b.jpg"]
    assert images.labels is None and images.classes == () and images.split == "train"
    again = pickle.loads(pickle.dumps(images))
    assert again.describe(2) == images.describe(2) and again.fingerprint == images.fingerprint


def test_what_is_no_image_is_skipped_and_counted(tmp_path: Path) -> None:
    root = tree(tmp_path, ["cat/1.png", "dog/2.png"])
    for junk in ("cat/.DS_Store", "cat/._1.png", ".cache/x.png", "__MACOSX/cat/1.png", "cat/.thumbs/1.png"):
        paint(root / junk)
    (root / "cat/notes.txt").write_text("x")
    (root / "README").write_text("x")
    os.mkfifo(root / "dog/pipe.png")  # reading it would wait for ever
    assert described(FlatFolder(root), root) == ["cat/1.png", "dog/2.png"]
    images = ClassFolder(root)
    assert described(images, root) == ["cat/1.png", "dog/2.png"]
    assert images.skipped == FlatFolder(root).skipped == 3 and "/" in images.skipped_example
    paint(root / "stray.png")  # belongs to no class
    assert len(ClassFolder(root)) == 2 and ClassFolder(root).skipped == 4
    assert len(FlatFolder(root)) == 3


def test_a_folder_that_is_named_like_an_image_is_a_folder(tmp_path: Path) -> None:
    root = tree(tmp_path, ["album.jpg/1.png"])
    assert described(FlatFolder(root), root) == ["album.jpg/1.png"]
    assert ClassFolder(root).classes == ("album.jpg",)


def test_links_are_followed_and_cycles_are_not(tmp_path: Path) -> None:
    elsewhere = tree(tmp_path / "elsewhere", ["dogs/2.png", "dogs/deep/3.png", "single.png"])
    root = tree(tmp_path / "root", ["cat/1.png"])
    (root / "dog").symlink_to(elsewhere / "dogs")
    (root / "cat/link.png").symlink_to(elsewhere / "single.png")
    (root / "cat/up").symlink_to(root)
    (elsewhere / "dogs/again").symlink_to(elsewhere / "dogs")
    (elsewhere / "dogs/back").symlink_to(root)  # above the link `dog`
    (elsewhere / "dogs/out").symlink_to(elsewhere)  # above the folder that it leads to
    (root / "cat/itself").symlink_to(root / "cat/itself")
    images = ClassFolder(root)
    expected = ["cat/1.png", "cat/link.png", "dog/2.png", "dog/deep/3.png"]
    assert described(images, root) == expected and images.labels is not None
    assert images.labels.tolist() == [0, 0, 1, 1]
    (elsewhere / "dogs/out").unlink()
    assert described(FlatFolder(root), root) == expected
    assert images.image(1).shape == (6, 5, 3)
    (tmp_path / "way").symlink_to(root)
    assert described(ClassFolder(tmp_path / "way"), tmp_path / "way") == expected


def test_a_link_that_leads_nowhere_is_an_image_that_cannot_be_read(tmp_path: Path) -> None:
    """It is counted and named like any other bad file instead of silently missing."""
    root = tree(tmp_path, ["1.png"])
    (root / "0.png").symlink_to(root / "gone.png")
    (root / "2.png").symlink_to(root / "2.png")
    images = FlatFolder(root)
    assert described(images, root) == ["0.png", "1.png", "2.png"]
    for index in (0, 2):
        with pytest.raises(UnreadableImage, match=re.escape(images.describe(index))):
            images.image(index)
    assert images.fingerprint  # has no size to look at, and says so


def test_any_name_can_be_read(tmp_path: Path) -> None:
    names = ["with space.png", "ünï ✓ 图.png", "quote'\".png", "a\nb.png", "%s{}.png", "#1.png", "~.png"]
    root = tree(tmp_path / "some folder é", names)
    raw = os.path.join(os.fsencode(root), b"caf\xe9.png")  # noqa: PTH118 (bytes)
    shutil.copy(root / "#1.png", os.fsdecode(raw))
    images = FlatFolder(root)
    assert len(images) == len(names) + 1
    for index in range(len(images)):
        assert images.image(index).shape == (6, 5, 3)
        images.describe(index).encode()
        assert "\n" not in images.describe(index)
    assert images.fingerprint


def test_paths_are_kept_in_one_buffer() -> None:
    names = [b"a.png", b"", "é/图.png".encode(), b"/abs/olute.png", b"caf\xe9.png"]
    table = PathTable("/top", names)
    assert [table[i] for i in range(5)] == ["/top/a.png", "/top/", "/top/é/图.png", "/abs/olute.png",
                                            os.fsdecode(b"/top/caf\xe9.png")]  # fmt: skip
    assert table.buffer.nbytes == sum(map(len, names)) and len(table) == 5
    for index in (-1, 5):
        with pytest.raises(IndexError):
            table[index]


def test_sizes_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("siamtransfer.data.listing.STAT_CHUNK", 3)
    for size in range(10):
        (tmp_path / f"{size}.png").write_bytes(b"x" * size)
    table = PathTable(tmp_path, [b"gone.png", *list_images(tmp_path).paths])
    assert table.sizes().tolist() == [-1, *range(10)]


def test_a_relative_root_survives_a_change_of_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path / "images", ["cat/1.png"])
    monkeypatch.chdir(tmp_path)
    images = ClassFolder("images")
    monkeypatch.chdir("/")
    assert images.image(0).shape == (6, 5, 3)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    root = tree(tmp_path, ["bus/1.png", "train/2.png", "car/3.png"])
    assert ClassFolder(root).classes == ("bus", "car", "train")


def test_test_images_are_never_taken_for_choosing(tmp_path: Path) -> None:
    root = tree(tmp_path, ["train/a/1.png", "test/a/2.png"])
    with pytest.raises(UserError, match="no split val; its splits are train, test"):
        ClassFolder(root, "val")


def test_an_unlabelled_test_folder_gives_way_to_val(tmp_path: Path) -> None:
    root = tree(tmp_path, ["train/a/1.png", "val/a/2.png", "test/3.png"])
    assert described(ClassFolder(root, "test"), root) == ["val/a/2.png"]


# what is wrong: the files, the root, and what the message says
MISTAKES: dict[str, tuple[list[str], str, str]] = {
    "no such folder": ([], "nowhere", r"nowhere does not exist; .*--data\.root"),
    "a file": (["a.png"], "a.png", r"a\.png is a file; --data\.root takes the folder"),
    "below a file": (["a.png"], "a.png/b", "does not exist"),
    "empty": ([], ".", r"there are no images below .*check the path"),
    "only other files": (["a.txt", "b/c.pdf"], ".", r"there are no images below .* \(2 other files, such as"),
    "empty classes": (["cat/a.txt", "dog/b.txt"], ".", "there are no images below"),
    "flat": (["1.png", "2.png"], ".", r"no class folders; .*--data\.name flat"),
    "flat splits": (["train/1.png", "val/2.png"], ".", "train holds no class folders; .*flat --data.root"),
}
# the same, with a split
WRONG_SPLITS: dict[str, tuple[list[str], str, str, str]] = {
    "missing": (["train/a/1.png", "val/a/2.png"], ".", "extra", "no split extra; its splits are train, val"),
    "none at all": (["cat/1.png", "dog/2.png"], ".", "test", "no split test, as it holds cat, dog and no"),
    "one too deep": (["train/cat/1.png"], "train", "test", "give the folder above it"),
    "ImageNet's unsorted val": (
        ["train/a/1.png", "val/2.png"],
        ".",
        "val",
        "val holds no class folders; sort",
    ),
    "other classes": (
        ["train/a/1.png", "train/b/1.png", "val/b/2.png", "val/c/2.png"],
        ".",
        "val",
        r"has classes that are not among those of train \(c\), .* put images of it into train",
    ),
}


def refusal(base: Path, names: list[str], root: str, split: str) -> str:
    for name in names:
        if name.endswith(".png"):
            paint(base / name)
        else:
            (base / name).parent.mkdir(exist_ok=True)
            (base / name).write_text("x")
    with pytest.raises(UserError) as caught:
        ClassFolder(base / root, split)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    return str(caught.value)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_sentence_with_a_cure(mistake: str, tmp_path: Path) -> None:
    names, root, message = MISTAKES[mistake]
    assert re.search(message, refusal(tmp_path, names, root, "train"))


@pytest.mark.parametrize("mistake", WRONG_SPLITS)
def test_wrong_splits_are_one_sentence_with_a_cure(mistake: str, tmp_path: Path) -> None:
    names, root, split, message = WRONG_SPLITS[mistake]
    assert re.search(message, refusal(tmp_path, names, root, split))


def test_an_empty_flat_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there are no images below"):
        FlatFolder(tmp_path)


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(tmp_path, ["open/1.png", "closed/2.png"])
    scandir = os.scandir

    def locked(path: str | Path) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    for kind in (ClassFolder, FlatFolder):
        with pytest.raises(UserError, match=r"cannot list the folder .*closed \(Permission denied\)"):
            kind(root)


def both(root: Path) -> tuple[str, str]:
    """The fingerprint, and that of the content."""
    images = ClassFolder(root)
    return images.fingerprint, images.content_fingerprint


def change_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("large", [False, True])
def test_images_that_change_at_equal_size_are_other_content_of_the_same_set(
    large: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if large:
        monkeypatch.setattr(folders, "CONTENT_LIMIT", 0)
    root = tree(tmp_path / "set", ["a/1.png", "a/2.png", "b/1.png"])
    fingerprint, content = both(root)
    assert both(root) == (fingerprint, content)
    change_a_byte(root / "a" / "2.png")
    assert both(root)[0] == fingerprint, "a run goes on, whose checkpoint has the fingerprint"
    assert both(root)[1] != content


def test_the_content_of_a_small_set_is_its_bytes(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", ["a/1.png", "b/1.png"])
    first = both(root)
    shutil.copytree(root, tmp_path / "copy", copy_function=shutil.copyfile)
    os.utime(root / "a" / "1.png", ns=(0, 0))
    assert both(root) == both(tmp_path / "copy") == first, "a touched file and a copy of the set"
    times = (root / "a" / "1.png").stat().st_mtime_ns
    change_a_byte(root / "a" / "1.png")
    os.utime(root / "a" / "1.png", ns=(times, times))
    assert both(root)[0] == first[0] and both(root)[1] != first[1]


def test_the_content_of_a_set_includes_its_order_and_what_cannot_be_read(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", ["a/1.png", "b/1.png"])
    first = both(root)[1]
    (root / "a" / "1.png").rename(root / "c.png")
    (root / "b" / "1.png").rename(root / "a" / "1.png")
    (root / "c.png").rename(root / "b" / "1.png")
    assert both(root)[1] != first, "two images have changed places"
    (root / "a" / "1.png").unlink()
    (root / "a" / "1.png").symlink_to("nothing")
    assert len(both(root)[1]) == 64


def test_the_content_of_a_subset_is_that_of_its_set(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", ["a/1.png", "a/2.png", "b/1.png"])

    def of(*indices: int) -> str:
        return content_fingerprint(Subset(ClassFolder(root), np.array(indices)))

    first = of(0, 2)
    assert of(0, 2) == first != of(0, 1)
    change_a_byte(root / "b" / "1.png")
    assert of(0, 2) != first
    pixels = ArrayImages("x", "train", np.zeros((2, 4, 4, 3), np.uint8))
    assert content_fingerprint(pixels) == pixels.fingerprint


def test_a_subset_is_read_and_labelled_as_its_set(tmp_path: Path) -> None:
    images = ClassFolder(tree(tmp_path / "set", ["a/1.png", "a/2.png", "b/1.png"]))
    images.form, images.remark = PixelForm(bit_depth=12), "a remark"
    images.ignored = np.array([[True], [False], [True]])  # type: ignore[attr-defined]  # as of voc07
    part = Subset(images, np.array([0, 2]))
    assert (part.form, part.remark) == (images.form, "a remark")
    assert part.ignored is not None
    assert part.ignored.tolist() == [[True], [True]]
    assert part.labels.tolist() == [0, 1]
    pixels = ArrayImages("x", "train", np.zeros((2, 4, 4, 3), np.uint8), np.zeros(2, np.int64), ("a",))
    plain = Subset(pixels, np.array([1]))
    assert (plain.form, plain.remark, plain.ignored) == (PixelForm(), None, None)
