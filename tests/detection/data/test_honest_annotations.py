"""Annotations as other programs write them: unusual, and meant so. The checks have to leave them alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from support.coco_sets import HEIGHT, WIDTH, coco_content, write_content, write_images

from siamtransfer.detection.data.coco_annotations import read_coco
from siamtransfer.detection.data.dataset_split import DetectionSplit
from siamtransfer.detection.data.voc_annotations import read_voc
from siamtransfer.utils.errors import UserError

pytestmark = pytest.mark.fault


def test_coco_of_other_programs_is_read(tmp_path: Path) -> None:
    """Numbers from UUIDs, an empty mask as an object, one a hair beyond the edge, areas of overlapping parts,
    a group of all classes that is called as one of them."""
    images = tmp_path / "images"
    write_images(images)
    content = coco_content()
    first, second, third = content["annotations"]
    first.update(id=2**128 - 1, segmentation={})
    second.update(segmentation=[[64.4, 1, 64.5, 1, 64.5, 2]], bbox=[64, 1, 0, 1], area=0.05)
    third["area"] = 2 * HEIGHT * WIDTH
    label = content["categories"][0]["name"]
    content["categories"].append({"id": 0, "name": label, "supercategory": "none"})
    split = read_coco(write_content(tmp_path / "own.json", content), images, "own")
    assert [item["area"] for item in split.annotations] == [item["area"] for item in (first, second, third)]
    assert split.classes[:2] == (f"{label} (none)", label)
    assert [item["category_id"] for item in split.annotations] == [
        1 + sorted(each["id"] for each in content["categories"][:-1]).index(item["category_id"])
        for item in (first, second, third)
    ]
    assert split.remarks == (
        "1 boxes have no area: training passes over them",
        "1 of 3 objects have no mask, annotations[0] for one: only boxes can be trained and scored",
        "1 objects have an area larger than image and box: COCO's AP for sizes goes by it",
    )
    content["categories"][-1]["supercategory"] = "animal"
    with pytest.raises(UserError, match="several categories called"):
        read_coco(write_content(tmp_path / "own.json", content), images, "own")


def voc_of_one(root: Path, name: str, xmax: str = "20") -> DetectionSplit:
    """A set in VOC's layout of one image, 40 x 30 pixels, with one object."""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    (root / "Annotations/a.xml").write_text(
        "<annotation><size><width>40</width><height>30</height></size>"
        f"<object><name>{name}</name><difficult/><bndbox><xmin>3</xmin><ymin>4</ymin><xmax>{xmax}</xmax>"
        "<ymax>25</ymax></bndbox></object></annotation>"
    )
    Image.new("RGB", (40, 30)).save(root / "JPEGImages/a.jpg")
    (root / "ImageSets/Main/test.txt").write_text("a\n")
    return read_voc(root, "test", "own")


@pytest.mark.parametrize("name", ["می\u200cروم", "👨\u200d👩\u200d👧", "big\u00a0dog", "狗\u3000大"])
def test_a_class_is_called_in_any_script(tmp_path: Path, name: str) -> None:
    """With joiners that have no width, and the blanks of a script inside."""
    assert voc_of_one(tmp_path, name).classes == (name,)


def test_a_number_may_have_many_digits_and_a_flag_none(tmp_path: Path) -> None:
    (item,) = voc_of_one(tmp_path, "dog", "20." + "123456789" * 6).annotations
    assert item["bbox"] == [2, 3, 20.123456789123457, 25] and item["difficult"] is False
