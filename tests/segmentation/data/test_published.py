"""VOC, Cityscapes, ADE20K and COCO-Stuff in small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.mask_layouts import (
    mask_of,
    write_ade20k,
    write_cityscapes,
    write_coco_stuff,
    write_image,
    write_mask,
    write_voc2012,
)

from siamtransfer.data.scenes.export import SceneCounts, write_voc
from siamtransfer.segmentation.data.masked_images import read_pair
from siamtransfer.segmentation.data.published_classes import (
    ADE20K,
    CITYSCAPES_IDS,
    COCO_STUFF_VALUES,
    VOC,
)
from siamtransfer.segmentation.data.registry import open_segmentation
from siamtransfer.utils.errors import UserError


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    masks = {name: mask_of([0, number, 255]) for number, name in enumerate("abcd", 1)}
    return write_voc2012(tmp_path, {"train": ["b", "a"], "val": ["c"], "trainval": ["a", "b", "c"]}, masks)


def test_class_lists_are_the_published_ones():
    assert (len(VOC), VOC[1], VOC[15], VOC[20]) == (21, "aeroplane", "person", "tvmonitor")
    assert list(CITYSCAPES_IDS).index("train") == 16 and len(CITYSCAPES_IDS) == 19
    assert (len(set(ADE20K)), ADE20K[0], ADE20K[12], ADE20K[149]) == (150, "wall", "person", "flag")
    assert (len(COCO_STUFF_VALUES), COCO_STUFF_VALUES["banner"], COCO_STUFF_VALUES["wood"]) == (171, 91, 181)
    assert COCO_STUFF_VALUES["toothbrush"] == 89


@pytest.mark.parametrize("inner", ["", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_voc_reads_indices_in_the_order_of_its_list(voc: Path, inner: str):
    images = open_segmentation("voc2012", root=voc.parents[1] / inner)
    assert [Path(str(images.path(index))).stem for index in range(2)] == ["b", "a"]
    image, mask = read_pair(images, 0)
    assert image.shape == (12, 16, 3) and np.array_equal(mask, mask_of([0, 2, 255]))
    assert images.classes == VOC and images.ignore == 255
    assert images.remarks == ["VOC2012's train has 2 images here; the published set has 1,464"]


def test_augmented_voc_adds_masks_to_train_and_leaves_val_out(voc: Path):
    for name in "cd":
        write_mask(voc / f"SegmentationClassAug/{name}.png", mask_of([7]))
    images = open_segmentation("voc2012-aug", root=voc)
    assert [Path(str(images.path(index))).stem for index in range(3)] == ["a", "b", "d"]
    assert np.array_equal(images.mask(0), mask_of([0, 1, 255])) and (images.mask(2) == 7).all()
    assert "how that list was made" in images.remarks[0] and "10,582" in images.remarks[1]
    (voc / "ImageSets/Segmentation/trainaug.txt").write_text(
        "/JPEGImages/d.jpg /SegmentationClassAug/d.png\n"
    )
    assert len(open_segmentation("voc2012-aug", root=voc)) == 1


def test_augmented_voc_without_its_masks(voc: Path):
    with pytest.raises(UserError, match="SegmentationClassAug is missing: unpack"):
        open_segmentation("voc2012-aug", root=voc)


def test_voc_masks_that_are_listed_and_missing(voc: Path):
    (voc / "SegmentationClass/a.png").unlink()
    with pytest.raises(UserError, match=r"1 of the 2 masks of voc2012/train are missing.*a\.png"):
        open_segmentation("voc2012", root=voc)


def test_scenes_written_as_voc_are_the_scenes(tmp_path: Path):
    write_voc(tmp_path / "VOC2007", SceneCounts(train=4, test=2, size=32))
    scenes = open_segmentation("fashion-scenes", split="train", size=32, count=4)
    (tmp_path / "list.txt").write_text("\n".join(scenes.classes))
    written = open_segmentation(
        "voc2012", root=tmp_path / "VOC2007", split="trainval", classes=tmp_path / "list.txt"
    )
    assert written.classes == scenes.classes and written.remarks == []
    for index in range(4):
        assert np.array_equal(written.mask(index), scenes.mask(index))


def test_cityscapes_maps_label_ids_to_train_ids(tmp_path: Path):
    write_cityscapes(tmp_path, "train", {"ulm": [mask_of([0, 7, 33, 3])], "bonn": [mask_of([26, 9, 11, 12])]})
    images = open_segmentation("cityscapes", root=tmp_path)
    assert len(images) == 2 and "bonn" in images.describe(0)
    assert np.array_equal(images.mask(0), mask_of([13, 255, 2, 3]))
    assert np.array_equal(images.mask(1), mask_of([255, 0, 18, 255]))


def test_cityscapes_without_label_ids_names_the_file(tmp_path: Path):
    write_cityscapes(tmp_path, "val", {"ulm": [mask_of([7])]})
    next((tmp_path / "gtFine/val/ulm").glob("*labelIds.png")).unlink()
    with pytest.raises(UserError, match=r"ulm_000000_000019_gtFine_labelIds\.png is missing"):
        open_segmentation("cityscapes", root=tmp_path, split="val")


def test_ade20k_counts_from_one_and_ignores_other(tmp_path: Path):
    write_ade20k(tmp_path, "training", [mask_of([0, 1, 150])])
    images = open_segmentation("ade20k", root=tmp_path)
    assert np.array_equal(images.mask(0), mask_of([255, 0, 149]))
    assert "20,210" in images.remarks[0]
    inner = open_segmentation("ade20k", root=tmp_path / "ADEChallengeData2016")
    assert inner.fingerprint == images.fingerprint


@pytest.mark.parametrize("maps", ["annotations", "stuffthingmaps", "stuffthingmaps_trainval2017"])
def test_coco_stuff_closes_the_gaps_of_its_ids(tmp_path: Path, maps: str):
    write_coco_stuff(tmp_path, "val", [mask_of([0, 12, 181, 255])], maps)
    images = open_segmentation("coco-stuff", root=tmp_path, split="val")
    assert np.array_equal(images.mask(0), mask_of([0, 11, 170, 255])) and images.classes[11] == "stop sign"
    write_mask(Path(str(images.mask_path(0))), mask_of([11]))
    with pytest.raises(UserError, match=r"holds value 11 \(192 pixels\)"):
        images.mask(0)


@pytest.mark.parametrize(
    "name, expected",
    [
        ("voc2012", "VOCdevkit/VOC2012 with ImageSets"),
        ("voc2012-aug", "VOCdevkit/VOC2012 with ImageSets"),
        ("cityscapes", "leftImg8bit/train of cityscapes"),
        ("ade20k", "ADEChallengeData2016/images/training"),
        ("coco-stuff", "images/train2017 or train2017"),
        ("masks", "no layout of images and masks"),
    ],
)
def test_wrong_layouts_name_what_is_expected(tmp_path: Path, name: str, expected: str):
    write_image(tmp_path / "pictures/0.jpg", 0)
    with pytest.raises(UserError, match=expected) as error:
        open_segmentation(name, root=tmp_path)
    assert str(tmp_path) in str(error.value)
