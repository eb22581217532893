"""Folders of one's own, their class lists, and the sets by name."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.mask_layouts import mask_of, write_image, write_mask, write_own

from siamtransfer.segmentation.data.masked_images import read_pair
from siamtransfer.segmentation.data.registry import open_segmentation
from siamtransfer.utils.errors import UserError


@pytest.fixture
def own(tmp_path: Path) -> Path:
    write_own(tmp_path, [mask_of([0, 1]), mask_of([1, 2, 255])], ["sky", "sea", "sand"])
    return tmp_path


def test_a_folder_of_each_kind_and_split(own: Path):
    images = open_segmentation("masks", root=own)
    image, mask = read_pair(images, 1)
    assert image.shape[:2] == mask.shape and np.array_equal(mask, mask_of([1, 2, 255]))
    assert images.classes == ("sky", "sea", "sand") and str(images.path(1)).endswith("images/train/1.jpg")


def test_all_layouts_hold_the_same(own: Path, tmp_path_factory: pytest.TempPathFactory):
    first = open_segmentation("masks", root=own)
    other = tmp_path_factory.mktemp("other")
    for kind in ("images", "masks"):
        shutil.copytree(own / kind / "train", other / "a/train" / kind)
        shutil.copytree(own / kind / "train", other / "b" / kind)
    for root in (other / "a", other / "b", f"{own}/images@{own}/masks", f"{other}/b/images@{other}/b/masks"):
        images = open_segmentation("masks", root=root, classes=own / "classes.txt")
        assert images.fingerprint == first.fingerprint


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_split_that_is_not_there(own: Path, split: str):
    for root in (own, f"{own}/images@{own}/masks"):
        with pytest.raises(UserError, match=f"images/{split} is missing.*has the splits train"):
            open_segmentation("masks", root=root, split=split)


def test_images_of_all_splits_are_never_train(own: Path):
    shutil.rmtree(own / "masks/train")
    write_mask(own / "masks/0.png", mask_of([0]))
    with pytest.raises(UserError, match="masks/train is missing"):
        open_segmentation("masks", root=own)


def test_images_without_a_mask_are_counted_and_named(own: Path):
    write_image(own / "images/train/more/7.png", 7)
    with pytest.raises(
        UserError, match=r"1 of the 3 images .*more/7\.png, for which .*more/7\.png is missing"
    ):
        open_segmentation("masks", root=own)


def test_masks_without_an_image_are_a_remark(own: Path):
    write_mask(own / "masks/train/9.png", mask_of([0]))
    assert open_segmentation("masks", root=own).remarks == [
        "1 of 3 masks have no image and are not used: 9.png"
    ]


def test_two_masks_of_one_image(own: Path):
    Image.fromarray(mask_of([0])).save(own / "masks/train/1.tif")
    with pytest.raises(UserError, match=r"two masks of one image, 1\.png and 1\.tif"):
        open_segmentation("masks", root=own)


def test_a_class_list_with_values(own: Path):
    (own / "classes.txt").write_text("# of the survey\n7: sea\n 1000 : sand\n\n")
    write_mask(own / "masks/train/0.png", mask_of([7, 1000, 0]))
    images = open_segmentation("masks", root=own, ignore=0)
    assert images.classes == ("sea", "sand") and np.array_equal(images.mask(0), mask_of([0, 1, 255]))


def test_many_classes_need_wide_masks(own: Path):
    (own / "classes.txt").write_text("\n".join(f"class {number}" for number in range(300)))
    write_mask(own / "masks/train/0.png", mask_of([0, 299, 65535]))
    images = open_segmentation("masks", root=own)
    assert images.ignore == 65535 and images.mask(0).dtype == np.uint16
    assert np.array_equal(images.mask(0), mask_of([0, 299, 65535]))


@pytest.mark.parametrize(
    "text, ignore, message",
    [
        ("", None, "names no class"),
        ("a\nb\na", None, "states the class a twice"),
        ("1: a\n1: b", None, "states the value 1 twice"),
        ("70000: a", None, "states the value 70000"),
        ("a\nb", 1, r"data\.ignore is 1, which .*classes\.txt names as the class b"),
        ("a\nb", -1, r"data\.ignore is -1"),
    ],
)
def test_class_lists_that_are_not_right(own: Path, text: str, ignore: int | None, message: str):
    (own / "classes.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        open_segmentation("masks", root=own, ignore=ignore)


def test_no_class_list(own: Path):
    (own / "classes.txt").unlink()
    with pytest.raises(UserError, match=r"data\.classes: .* need a class list"):
        open_segmentation("masks", root=own)


def test_values_above_the_class_list(own: Path):
    write_mask(own / "masks/train/0.png", mask_of([0, 5]))
    with pytest.raises(
        UserError, match=r"train/0\.png holds value 5 \(96 pixels\), which is neither a class"
    ):
        open_segmentation("masks", root=own).mask(0)


def test_sizes_that_differ(own: Path):
    write_mask(own / "masks/train/0.png", mask_of([0], (16, 12)))
    with pytest.raises(
        UserError, match=r"0\.jpg has 16 x 12 pixels and .*0\.png has 12 x 16: one of the two"
    ):
        read_pair(open_segmentation("masks", root=own), 0)


def test_fingerprints_follow_files_and_meaning(own: Path):
    before = open_segmentation("masks", root=own)
    prints = before.fingerprint, before.content_fingerprint
    write_mask(own / "masks/train/0.png", mask_of([1, 0]))
    after = open_segmentation("masks", root=own)
    assert after.content_fingerprint != prints[1]
    assert open_segmentation("masks", root=own, ignore=254).fingerprint != after.fingerprint


def test_a_part_is_spread_over_the_set(own: Path):
    for index in range(2, 9):
        write_image(own / f"images/train/{index}.jpg", index)
        write_mask(own / f"masks/train/{index}.png", mask_of([0]))
    part = open_segmentation("masks", root=own, count=3)
    assert [Path(str(part.path(index))).stem for index in range(3)] == ["0", "4", "8"]
    assert part.remarks == ["3 of the 9 images of masks/train"]
    assert len(open_segmentation("masks", root=own, count=100)) == 9


def test_scenes_are_a_function_of_their_index():
    images = open_segmentation("fashion-scenes", split="test", size=32, count=4)
    image, mask = read_pair(images, 3)
    more = open_segmentation("fashion-scenes", split="test", size=32, count=6)
    assert np.array_equal(more.image(3), image) and np.array_equal(more.mask(3), mask)
    assert images.fingerprint != more.fingerprint and images.classes[0] == "background"
    assert 0 < (mask > 0).mean() < 1 and mask.max() < len(images.classes)
    with pytest.raises(IndexError):
        images.mask(4)


@pytest.mark.parametrize(
    "name, arguments, message",
    [
        ("mask", {}, r"no set of masks 'mask'; did you mean masks\?"),
        ("masks", {}, r"data\.root: masks .* needs it"),
        ("masks", {"root": "x", "size": 3}, r"data\.size: masks does not take it"),
        ("fashion-scenes", {"root": "x"}, r"data\.root: fashion-scenes does not take it"),
        ("fashion-scenes", {"split": "val"}, r"data\.split: fashion-scenes has no split 'val'"),
        ("fashion-scenes", {"count": 0}, r"data\.count is 0"),
        ("cityscapes", {"root": "x", "split": "test"}, r"data\.split: cityscapes has no split 'test'"),
        ("cityscapes", {"root": "x", "classes": "y"}, r"data\.classes: cityscapes does not take it"),
        ("ade20k", {"root": "/no/such"}, "the folder /no/such does not exist"),
    ],
)
def test_arguments_that_do_not_fit(name: str, arguments: dict, message: str):
    with pytest.raises(UserError, match=message):
        open_segmentation(name, **arguments)
