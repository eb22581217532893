"""Odd values in COCO's format: each is refused in a sentence that names the place, or read as it is meant."""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_masks
from support.coco_sets import (
    AREA,
    HEIGHT,
    WIDTH,
    coco_content,
    rectangle_runs,
    write_content,
    write_images,
)
from support.fuzz import examples
from support.odd_texts import odd_values, places_of, with_value_at
from support.sentences import is_sentence
from support.thorough import more

from siamtransfer.detection.data import annotation_json
from siamtransfer.detection.data.coco_annotations import read_coco
from siamtransfer.detection.data.dataset_split import DetectionSplit, read_image
from siamtransfer.detection.data.datasets import DetectionData
from siamtransfer.detection.data.run_lengths import inside_pixels
from siamtransfer.utils.errors import UserError

pytestmark = pytest.mark.fault
Change = Callable[[dict[str, Any]], Any]
NAN, INF = float("nan"), float("inf")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of images, never to be changed."""
    folder = tmp_path_factory.mktemp("coco") / "images"
    write_images(folder)
    return folder


def opened(content: Any, images: Path, path: Path) -> DetectionSplit:
    return read_coco(write_content(path, content), images, "own")


def entry(key: str, value: Any, kind: str = "annotations") -> Change:
    return lambda content: content[kind][1].__setitem__(key, value)


def polygons(*values: Any) -> Change:
    return entry("segmentation", [list(values)])


def runs(counts: Any, size: Any = (HEIGHT, WIDTH)) -> Change:
    return entry("segmentation", {"size": list(size) if isinstance(size, tuple) else size, "counts": counts})


def compressed(height: int, width: int) -> str:
    mask = np.zeros((height, width), np.uint8, order="F")
    mask[1:9, 2:30] = 1
    return str(coco_masks.encode(mask)["counts"].decode())


REFUSED: list[Any] = [
    (polygons(1, 1, NAN, 5, 7, 7), "polygon with the corner nan, 5, which is no numbers"),
    (polygons(1, 1, INF, 5, 7, 7), "the corner inf, 5, which is no numbers"),
    (polygons(1, 1, 1e9, 5, 7, 7), r"the corner 1e\+09, 5, which is far from its image of 64 x 48 pixels"),
    more(polygons(1, 1, -1e300, 5, 7, 7), "far from its image"),
    (polygons(1, 1, 10**400, 5, 7, 7), "has a mask that is neither polygons nor run lengths"),
    (polygons(1, 1, True, 5, 7, 7), "neither polygons nor run lengths"),
    (polygons(1, 1, "9", 5, 7, 7), "neither polygons nor run lengths"),
    (polygons(1, 1, 9, 5, 7, 7, 3), "a polygon of 7 numbers, and each x is followed by its y"),
    (polygons(*[100, 100, 110, 100, 110, 110]), "has a mask that lies outside its image of 64 x 48 pixels"),
    (polygons(*[-500, 1, 500, 40] * 4000), "has an outline of .* pixels, more than the 4,000,000"),
    (entry("segmentation", [5, 6, 25, 6, 25, 20]), "neither polygons nor run lengths, .5, 6, 25"),
    (entry("segmentation", [[[5, 6], [25, 6], [25, 20]]]), "neither polygons nor run lengths"),
    (entry("segmentation", "mask.png"), "neither polygons nor run lengths, 'mask.png'"),
    more(entry("segmentation", True), "neither polygons nor run lengths, true"),
    (runs(compressed(480, 640)), "has run lengths of 307,200 pixels, and its image has 3,072"),
    (runs("PPSPPPPP0"), "a text under counts that is no run-length code"),  # 3072, behind zeros
    (runs("zzzzzzzzzzzzzzzzzz"), "a text under counts that is no run-length code"),
    (runs(str(b"PP10")), "a text under counts that is no run-length code"),
    (runs(""), "a text under counts that is no run-length code"),
    (runs("\u4e00"), "a text under counts that is no run-length code"),
    more(runs("5"), "has run lengths of 5 pixels, and its image has 3,072"),
    (runs([HEIGHT * WIDTH + 10, -10]), "has the run length -10, and each is a count of pixels"),
    (runs([HEIGHT * WIDTH - 1]), "do not add up to its image's pixels: 3071, not 3,072"),
    (runs([10**400]), "do not add up to its image's pixels: 1000"),
    (runs([3000.5, 71.5]), "has the run length 3000.5"),
    (runs([True, 3071]), "has the run length true"),
    (runs(None), "has a mask without run lengths, its counts are null"),
    (runs([3072], (WIDTH, HEIGHT)), "its image's width and height in the wrong order; write the height"),
    (runs([3072], None), "has a mask of size null, not its image's height and width"),
    more(runs([3072], ["48", "64"]), "has a mask of size .'48', '64'., not its image's"),
    (entry("iscrowd", None), "has the iscrowd null instead of 0 or 1"),
    (entry("iscrowd", "false"), "has the iscrowd 'false' instead of 0 or 1"),
    (entry("iscrowd", 2), "has the iscrowd 2 instead of 0 or 1"),
    more(entry("iscrowd", "1"), "has the iscrowd '1' instead of 0 or 1"),
    (entry("image_id", [1]), r"has the image_id \[1\] instead of the id of an image"),
    (entry("image_id", NAN), "has the image_id nan instead of the id of an image"),
    (entry("image_id", True), "has the image_id true instead of"),
    (entry("category_id", {}), "has the category_id {} instead of the id of a category"),
    more(entry("category_id", "3"), "has the category_id '3' instead of"),
    (entry("id", 10**400), "has the id 1000.* instead of an integer of its own"),
    (lambda c: c["annotations"][1].pop("id"), r"ations\[1\] in .* has no id; give an integer of its own"),
    (entry("bbox", [1, 2, 10**400, 4]), "has the bbox .* instead of the numbers x, y, width and height"),
    (entry("bbox", ["1", 2, 3, 4]), "has the bbox .'1', 2, 3, 4. instead of the numbers"),
    (entry("bbox", [1, 2, 3, 4, 0.9]), "instead of the numbers x, y, width and height"),
    (entry("bbox", [0, 0, 1e30, 1e30]), "lie far from the image of 64 x 48 pixels"),
    (entry("bbox", [5, 5, -2, 4]), "have the second corner before the first"),
    (entry("area", NAN), "the area nan, and its image has 3,072 pixels; mend it, or leave the key area out"),
    (entry("area", -1), "has the area -1"),
    (entry("area", 1e12), "has the area 1000000000000.0, and its image has 3,072 pixels"),
    (entry("area", None), "has the area null"),
    more(entry("area", 10**400), "has the area 1000"),
    (entry("width", "64", "images"), "has the width '64' instead of its true size in pixels"),
    (entry("width", 0, "images"), "is 0 x 48 pixels; write its true size there"),
    (entry("height", 2**40, "images"), "is 64 x 1099511627776 pixels"),
    (entry("width", 48, "images"), r"p1.jpg is 64 x 48 pixels and its annotation|has a mask of size"),
    (entry("file_name", "p\0.jpg", "images"), "which holds a byte of zero; write the name of its file"),
    (entry("file_name", "/etc/hostname", "images"), "which begins at the root; write its name below"),
    (entry("file_name", "../images/p1.jpg", "images"), "which leads out of the folder of images"),
    (entry("file_name", "http://a.org/p1.jpg", "images"), "which is an address; download the images"),
    (entry("file_name", "\ud800.jpg", "images"), "which holds half a character"),
    (entry("file_name", "", "images"), "which is empty; write the name of its file"),
    (entry("file_name", ".", "images"), "is a folder; put the image there or mend its name"),
    (entry("file_name", "x" * 5000, "images"), "1 of the 3 images of own are missing"),
    (entry("file_name", "images/p1.jpg", "images"), "its folder stands twice in the path, images"),
    (entry("file_name", ".\\p1.jpg", "images"), r"the name has \\ where this machine has /"),
    (entry("file_name", "p1.JPG", "images"), "its name ends in .jpg"),
    (entry("id", 1, "categories"), r"two entries of categories in .* have the id 1, categories.0. and"),
    (entry("name", ["dog"], "categories"), "has the name .'dog'.; give the class a name"),
    (entry("name", "do\ng", "categories"), "give it one of letters in one line"),
    (entry("name", "\ud800", "categories"), "give it one of letters in one line"),
    (lambda c: c.update(annotations={"1": {}}), "has no list 'annotations'"),
    (lambda c: c["images"].append(7), r"the list 'images' in .* images\[3\] is 7; restore the file"),
    (
        lambda c: [item.update(bbox=[0.1, 0.2, 0.5, 0.3]) for item in c["annotations"]],
        "no box of .* has a side of more than one pixel: they are fractions",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("change", "sentence"), REFUSED)
def test_an_odd_value_is_refused_by_its_place(
    change: Change, sentence: str, images: Path, tmp_path: Path
) -> None:
    content = coco_content()
    change(content)
    with pytest.raises(UserError, match=sentence) as caught:
        opened(content, images, tmp_path / "own.json")
    message = str(caught.value).replace(str(tmp_path), "").replace(str(images.parent), "")
    assert message.isprintable() and "; " in message
    assert "own" in message or "the image /images" in message, "the file is named"


def swap(key: str, value: Any, kind: str = "annotations") -> Change:
    return lambda content: [item.__setitem__(key, value(item)) for item in content[kind]]


@pytest.mark.parametrize(
    "change",
    [
        swap("iscrowd", lambda item: False),
        swap("iscrowd", lambda item: 0.0),
        swap("image_id", lambda item: float(item["image_id"])),
        swap("width", lambda item: 64.0, "images"),
        swap("segmentation", lambda item: {"size": [HEIGHT, WIDTH], "counts": rectangle_runs(item)}),
        swap("segmentation", lambda item: {"size": [48.0, 64], "counts": rectangle_runs(item)}),
        swap(
            "segmentation",
            lambda item: {"size": [HEIGHT, WIDTH], "counts": [float(run) for run in rectangle_runs(item)]},
        ),
        swap("name", lambda item: f"{item['name']}\r\n", "categories"),
        lambda content: [item.pop("area") for item in content["annotations"]],
    ],
)
def test_what_means_the_same_is_read_alike(change: Change, images: Path, tmp_path: Path) -> None:
    clean = opened(coco_content(), images, tmp_path / "own.json")
    content = coco_content()
    change(content)
    split = opened(content, images, tmp_path / "own.json")
    for record, expected in zip(split.records, clean.records, strict=True):
        assert {**record, "annotations": 0} == {**expected, "annotations": 0}
        assert type(record["width"]) is int
        for item, known in zip(record["annotations"], expected["annotations"], strict=True):
            mask, same = item.pop("segmentation"), known["segmentation"]
            assert item == {key: value for key, value in known.items() if key != "segmentation"}
            assert type(item["iscrowd"]) is int and item["area"] == AREA
            if isinstance(mask, dict):
                expected_mask = coco_masks.frPyObjects(same, HEIGHT, WIDTH)[0]
                assert coco_masks.iou([mask], [expected_mask], [0]) == 1 and type(mask["size"][0]) is int
            else:
                assert mask == same
    assert not split.remarks and split.classes == clean.classes


def test_no_box_is_lost_with_its_mask(images: Path, tmp_path: Path) -> None:
    content = coco_content()
    for item, mask in zip(content["annotations"], ([[]], [], [[1, 2, 3, 4]]), strict=True):
        item["segmentation"] = mask
    split = opened(content, images, tmp_path / "own.json")
    assert [item["bbox"] for item in split.annotations] == [item["bbox"] for item in content["annotations"]]
    assert not any("segmentation" in item for item in split.annotations)
    assert split.remarks == (
        "2 objects have no polygon with three corners, annotations[0] for one: their boxes are kept, without "
        "a mask",
    )


def test_oddities_that_stay_are_counted(images: Path, tmp_path: Path) -> None:
    content = coco_content()
    first, second, third = content["annotations"]
    first["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}
    second["segmentation"] = [[-30, 1, 100, 1, 100, 40], [1, 2]]
    third["area"] = 0
    content["images"][2]["file_name"] = "p1.jpg"
    remarks = opened(content, images, tmp_path / "own.json").remarks
    assert remarks == (
        "1 images are listed again under another id: each has its own objects only",
        "1 objects have polygons without three corners beside others: these are left out",
        "1 masks have no pixel inside",
        "1 masks reach more than a pixel beyond their image: training cuts them off",
        "1 objects have the area 0 and a box of a pixel or more: COCO's AP takes them for small",
    )


def test_the_first_object_without_a_mask_is_named(images: Path, tmp_path: Path) -> None:
    def told(masks: int) -> str | None:
        content = coco_content()
        for item in content["annotations"][masks:]:
            del item["segmentation"]
        split = opened(content, images, tmp_path / "own.json")
        return DetectionData((split,), split).without_masks()

    assert told(3) is None and told(0) == "own has boxes only"
    image = images / "p1.jpg"
    assert told(1) == f"2 of the 3 objects of own have no mask, object 0 (counted from 0) of {image} for one"


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "own.json is empty; restore the file"),
        (b"[" * 200_000, "own.json is nested deeper than annotations are"),
        (b'{"a":' * 100_000, "own.json is nested deeper than annotations are"),
        (b"[[],[]," * 400_000, "has 1,200,000 brackets in 2,800,000 characters"),
        (b'{"images": ' + b"7" * 5000 + b"}", "holds a number of thousands of digits"),
        (b'{"images": [], "images": []}', "holds the key 'images' twice in one object"),
        (b'{"a": 1}\n{"a": 2}', "as JSON lines do: give one file of COCO's"),
        (b'{"images": [', "it may be cut off: restore it"),
        (b'{"a": "\xe9"}', "is no UTF-8 text: line 1 holds the byte 0xe9"),
        ('{"a": 1}'.encode("utf-16"), "is text in UTF-16: save it as UTF-8"),
        (b"\0" * 100, "is no text"),
        (b"nonsense", "is no JSON"),
        (b"7", "has no list 'images'"),
    ],
)
def test_a_file_that_is_no_annotations(data: bytes, sentence: str, images: Path, tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    path.write_bytes(data)
    with pytest.raises(UserError, match=sentence) as caught:
        read_coco(path, images, "own")
    assert is_sentence(caught.value)


def test_a_mark_of_utf8_is_no_content(images: Path, tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(coco_content()).encode())
    assert len(read_coco(path, images, "own").annotations) == 3


def test_one_huge_value_is_not_read(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A number of a hundred gigabytes, of which the disk holds nothing: its beginning is enough."""
    monkeypatch.setattr(annotation_json, "MOST_OF_A_VALUE", 2**16)
    path = tmp_path / "own.json"
    with path.open("wb") as file:
        file.write(b'{"images": 1')
        file.truncate(2**33)
    with pytest.raises(UserError, match="has a value of more than 65,536 bytes behind byte 0"):
        read_coco(path, images, "own")
    path.write_bytes(b"")
    os.truncate(path, 2**36)
    with pytest.raises(UserError, match="more than the 17,179,869,184 that are read"):
        read_coco(path, images, "own")


def test_pipes_are_not_waited_for(images: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "own.json"
    os.mkfifo(pipe)
    with pytest.raises(UserError, match=r"own\.json is a pipe or a device; name a file of annotations"):
        read_coco(pipe, images, "own")
    folder = tmp_path / "images"
    write_images(folder)
    (folder / "p1.jpg").unlink()
    os.mkfifo(folder / "p1.jpg")
    with pytest.raises(UserError, match=r"p1\.jpg is a pipe or a device; put the image there"):
        opened(coco_content(), folder, tmp_path / "other.json")


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "late.png"])
def test_exif_that_turns_an_image_is_named(kind: str, tmp_path: Path) -> None:
    """Stored 80 wide, shown 40 wide; the annotation is of what is shown, as Detectron2 reads it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(np.zeros((40, 80, 3), np.uint8))
    path = tmp_path / f"p0.{kind}"
    stored.save(path, exif=exif)
    if kind == "late.png":  # Pillow writes the chunk before the pixels
        data = path.read_bytes()
        start = data.index(b"eXIf") - 4
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        trailer = data.index(b"IEND") - 4
        path.write_bytes(data[:start] + data[end:trailer] + data[start:end] + data[trailer:])
    content = coco_content(1)
    content["images"][0] |= {"file_name": path.name, "width": 40, "height": 80}
    split = opened(content, tmp_path, tmp_path / "own.json")
    assert read_image(split.records[0]).shape == (80, 40, 3)
    content["images"][0] |= {"width": 80, "height": 40}
    with pytest.raises(
        UserError, match=r"is 40 x 80 pixels, as its EXIF orientation turns it, .*as they are"
    ):
        opened(content, tmp_path, tmp_path / "own.json")


def test_work_before_the_pixels_is_bounded(images: Path, tmp_path: Path) -> None:
    """A comment of 5 MB in the header of a PPM, on opening the data; scans of a JPEG, on reading it."""
    content = coco_content(1)
    content["images"][0]["file_name"] = "p0.ppm"
    (tmp_path / "p0.ppm").write_bytes(b"P6\n#" + b"x" * 5_000_000 + b"\n64 48\n255\n" + bytes(48 * 64 * 3))
    with pytest.raises(UserError, match=r"the image .*p0\.ppm because its header is damaged, or"):
        opened(content, tmp_path, tmp_path / "own.json")
    data = (images / "p0.jpg").read_bytes()
    scan = data[data.index(b"\xff\xda") : -2]
    (tmp_path / "p0.jpg").write_bytes(data[:-2] + 150 * scan + data[-2:])
    record = opened(coco_content(1), tmp_path, tmp_path / "own.json").records[0]
    with pytest.raises(UserError, match=r"cannot read the image .*p0\.jpg .*has more than 100 scans"):
        read_image(record)


def test_sizes_in_the_wrong_order_and_turned_tiffs(tmp_path: Path, images: Path) -> None:
    content = coco_content(1)
    content["images"][0] |= {"width": HEIGHT, "height": WIDTH}
    with pytest.raises(UserError, match="says 48 x 64, height and width in the other order; write the true"):
        opened(content, images, tmp_path / "own.json")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((WIDTH, HEIGHT, 3), np.uint8)).save(tmp_path / "p0.tif", exif=exif)
    content = coco_content(1)
    content["images"][0]["file_name"] = "p0.tif"
    with pytest.raises(UserError, match="is a TIFF with the orientation 6, which Detectron2 and Pillow both"):
        opened(content, tmp_path, tmp_path / "own.json")


@examples(12)
@given(
    sides=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    scale=st.integers(1, 12),
    share=st.sampled_from([0.0, 0.02, 0.5, 1.0]),
    seed=st.integers(0, 99),
)
def test_run_lengths_are_decoded_as_pycocotools_does(
    sides: tuple[int, int], scale: int, share: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    masks = [np.kron(generator.random(sides) < share, np.ones((scale, 2), bool)) for _ in range(3)]
    codes = [coco_masks.encode(np.asfortranarray(mask, np.uint8))["counts"].decode() for mask in masks]
    pixels = np.array([mask.size for mask in masks])
    inside, reason = inside_pixels(codes, pixels)
    assert reason is None and inside.tolist() == [int(mask.sum()) for mask in masks]
    inside, reason = inside_pixels([codes[0], codes[1] + "1", codes[2]], pixels)
    assert inside[1] == -1 and inside[[0, 2]].tolist() == [int(masks[0].sum()), int(masks[2].sum())]
    assert reason is not None


ODD_NUMBERS = st.sampled_from(
    [NAN, INF, -INF, 1e9, 1e300, -1e9, 10**400, -(10**30), 0, -1, 0.5, 2**31, 2**63, True, "1", 63.999]
)


@examples(60)
@given(data=st.data())
def test_any_change_is_read_or_refused(data: st.DataObject, images: Path, tmp_path: Path) -> None:
    """A node of a valid file is replaced, dropped or doubled: finite data, or one sentence."""
    content = coco_content(2)
    if data.draw(st.booleans()):
        content["annotations"][0]["segmentation"] = {
            "size": [HEIGHT, WIDTH],
            "counts": data.draw(st.sampled_from([[100, 20, 2952], "d3000000", "T2m00", compressed(48, 64)])),
        }
    for _ in range(data.draw(st.integers(1, 2))):
        place = data.draw(st.sampled_from(places_of(content)))
        value = data.draw(st.one_of(ODD_NUMBERS, odd_values(), st.just(copy.deepcopy(content))))
        content = with_value_at(content, place, value)
    try:
        split = opened(content, images, tmp_path / "own.json")
    except UserError as error:
        assert str(error).isprintable()
        return
    for record in split.records:
        for item in record["annotations"]:
            assert all(map(math.isfinite, [*item["bbox"], item["area"]])) and item["iscrowd"] in (0, 1)
            assert 0 <= item["category_id"] < len(split.classes)
            mask = item.get("segmentation")
            if isinstance(mask, dict):
                assert coco_masks.decode(mask).shape == (record["height"], record["width"])
            elif mask is not None:
                assert all(len(part) >= 6 and all(map(math.isfinite, part)) for part in mask)
