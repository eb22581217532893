"""Detection data by name and by path: what is read, and one sentence for each mistake."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from siamtransfer.data.scenes.export import SceneCounts, write_coco, write_voc
from siamtransfer.data.scenes.objects import CLASSES
from siamtransfer.data.scenes.scenes import many_object_scene
from siamtransfer.detection.data import dataset_split
from siamtransfer.detection.data.dataset_split import corners, read_image
from siamtransfer.detection.data.datasets import DetectionData, open_detection_data
from siamtransfer.detection.data.voc_annotations import VOC_CLASSES
from siamtransfer.detection.detectron2.catalog import register
from siamtransfer.detection.detectron2.compat import import_detectron2, is_installed
from siamtransfer.detection.metrics.pictures import draw_predictions
from siamtransfer.utils.errors import UserError

COUNTS = SceneCounts(train=10, test=5, size=64, seed=2)
needs_detectron2 = pytest.mark.skipif(
    not is_installed(), reason="Detectron2 is not installed: python scripts/get_detectron2.py"
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scenes in both formats, never to be changed."""
    root = tmp_path_factory.mktemp("scenes")
    write_voc(root / "voc", COUNTS)
    write_coco(root / "coco", COUNTS)
    return root


@pytest.fixture
def voc(folders: Path, tmp_path: Path) -> Path:
    """A copy in VOC's layout that a test may break."""
    return Path(shutil.copytree(folders / "voc", tmp_path / "voc"))


@pytest.fixture
def coco(folders: Path, tmp_path: Path) -> Path:
    """A copy in COCO's layout that a test may break."""
    return Path(shutil.copytree(folders / "coco", tmp_path / "coco"))


def open_voc(folder: Path, test: str = "test") -> DetectionData:
    return open_detection_data(f"{folder}:trainval", f"{folder}:{test}")


def open_coco(folder: Path) -> DetectionData:
    return open_detection_data(
        *(f"{folder}/annotations/instances_{p}.json@{folder}/{p}" for p in ("train", "val"))
    )


@pytest.mark.parametrize("kind", ["voc", "coco"])
def test_records_are_the_scenes(folders: Path, kind: str) -> None:
    data = (open_voc if kind == "voc" else open_coco)(folders / kind)
    for split, records in (("train", data.train), ("test", data.test)):
        assert len(records) == getattr(COUNTS, split)
        for index, record in enumerate(records):
            scene = many_object_scene(split, index, COUNTS.size, COUNTS.seed)
            assert (record["height"], record["width"]) == (64, 64)
            assert [corners(item) for item in record["annotations"]] == scene.boxes.tolist()
            names = [data.classes[item["category_id"]] for item in record["annotations"]]
            assert names == [CLASSES[label] for label in scene.labels]
            assert abs(read_image(record).astype(int) - scene.image).mean() < 8
            areas = [item["area"] for item in record["annotations"]]
            width, height = (scene.boxes[:, 2:] - scene.boxes[:, :2]).T
            assert areas == (width * height if kind == "voc" else scene.masks.sum((1, 2))).tolist()
            if kind == "voc":
                difficult = [item["difficult"] for item in record["annotations"]]
                assert difficult == (scene.visible < 0.5).tolist()
    assert data.has_masks == (kind == "coco")
    assert data.mask_format == ("bitmask" if kind == "coco" else "polygon")


def test_masks_are_the_scenes(folders: Path) -> None:
    from pycocotools import mask as run_lengths

    data = open_coco(folders / "coco")
    for index, record in enumerate(data.test):
        masks = [run_lengths.decode(item["segmentation"]) for item in record["annotations"]]
        scene = many_object_scene("test", index, COUNTS.size, COUNTS.seed)
        assert np.array_equal(np.array(masks, bool), scene.masks)


def test_embedded_scenes_are_written_once(folders: Path, own_cache: Path) -> None:
    for kind in ("voc", "coco"):
        data = open_detection_data("fashion-scenes", "fashion-scenes", kind=kind, scenes=COUNTS)  # type: ignore[arg-type]
        by_path = (open_voc if kind == "voc" else open_coco)(folders / kind)
        assert data.classes == CLASSES
        assert data.train_splits[0].name == "fashion-scenes/train"
        assert data.train_fingerprint == by_path.train_fingerprint
        assert data.test_fingerprint == by_path.test_fingerprint
    kept = {path: path.stat().st_mtime_ns for path in own_cache.rglob("*")}
    assert any("scenes" in str(path) for path in kept)
    open_detection_data("fashion-scenes", "fashion-scenes", kind="coco", scenes=COUNTS)
    assert {path: path.stat().st_mtime_ns for path in own_cache.rglob("*")} == kept


def test_builtin_names(voc: Path, coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """VOC's classes are the official ones, and several splits train together."""
    for year in (2007, 2012):
        shutil.copytree(voc, tmp_path / f"VOC{year}")
        for path in (tmp_path / f"VOC{year}" / "Annotations").iterdir():
            text = path.read_text()
            for label, name in zip(CLASSES, VOC_CLASSES, strict=False):
                text = text.replace(f"<name>{label}</name>", f"<name>{name}</name>")
            path.write_text(text)
    data = open_detection_data("voc_2007_trainval+voc_2012_trainval", "voc_2007_test", root=tmp_path)
    assert data.classes == VOC_CLASSES and len(data.classes) == 20
    assert len(data.train) == 20 and len(data.test) == 5
    first, second = data.train_fingerprint.split("+")
    assert first == second
    assert [split["name"] for split in data.describe()["train"]] == ["voc_2007_trainval", "voc_2012_trainval"]
    shutil.copytree(coco / "train", tmp_path / "coco" / "train2017", dirs_exist_ok=True)
    shutil.copytree(coco / "val", tmp_path / "coco" / "val2017", dirs_exist_ok=True)
    for name in ("train", "val"):
        source = coco / "annotations" / f"instances_{name}.json"
        shutil.copy(source, tmp_path / "coco" / "annotations" / f"instances_{name}2017.json")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    data = open_detection_data("coco_2017_train", "coco_2017_val")
    assert data.classes == CLASSES and len(data.train) == 10
    objects = sum(len(record["annotations"]) for record in data.train)
    assert str(data).splitlines()[0] == f"train  coco_2017_train: 10 images, {objects} objects"


def test_own_voc_classes_are_those_that_occur_in_train(voc: Path) -> None:
    data = open_voc(voc)
    assert data.classes == tuple(sorted({item.text or "" for item in names_in(voc, data.train)}))
    change_xml(voc, "000012", lambda tree: setattr(tree.find("object/name"), "text", "hat"))
    with pytest.raises(UserError, match=r"000012.xml has an object of the class 'hat', which is none of"):
        open_voc(voc)


def names_in(folder: Path, records: list[dict[str, Any]]) -> list[ET.Element]:
    trees = [ET.parse(folder / "Annotations" / f"{record['image_id']}.xml") for record in records]
    return [name for tree in trees for name in tree.findall("object/name")]


def change_xml(folder: Path, name: str, change: Callable[[ET.Element], Any]) -> None:
    path = folder / "Annotations" / f"{name}.xml"
    tree = ET.parse(path)
    change(tree.getroot())
    tree.write(path)


def change_json(folder: Path, change: Callable[[dict[str, Any]], Any], name: str = "train") -> None:
    path = folder / "annotations" / f"instances_{name}.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def drop_all(tree: ET.Element, tag: str, inside: str = ".") -> None:
    for parent in [tree] if inside == "." else tree.findall(inside):
        for child in parent.findall(tag):
            parent.remove(child)


def set_text(tag: str, text: str) -> Callable[[ET.Element], None]:
    return lambda tree: setattr(tree.find(tag), "text", text)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (set_text("size/width", "65"), "000003.jpg is 64 x 64 pixels and its annotation in .* says 65 x 64"),
        (set_text("size/width", "0"), "000003.xml gives its image 0 x 64 pixels; write the true size"),
        (lambda t: drop_all(t, "size"), "000003.xml needs a number in <size/height> and has none"),
        (lambda t: drop_all(t, "name", "object"), "object 1 in .*000003.xml has no name"),
        (lambda t: drop_all(t, "bndbox", "object"), "needs a number in <bndbox/xmin> and has none"),
        (set_text("object/bndbox/xmax", "wide"), "needs a number in <bndbox/xmax> and says 'wide'"),
        (set_text("object/bndbox/xmax", "nan"), "object 1 in .*000003.xml needs a number .* and says 'nan'"),
        (set_text("object/bndbox/xmax", "0"), "object 1 in .* have the second corner before the first"),
    ],
)  # fmt: skip
def test_broken_voc_annotation(voc: Path, change: Callable[[ET.Element], None], sentence: str) -> None:
    change_xml(voc, "000003", change)
    with pytest.raises(UserError, match=sentence) as caught:
        open_voc(voc)
    assert "\n" not in str(caught.value) and ";" in str(caught.value)


def test_broken_voc_folder(voc: Path, tmp_path: Path) -> None:
    def refused(sentence: str, test: str = "test") -> None:
        with pytest.raises(UserError, match=sentence):
            open_voc(voc, test)

    refused(
        "needs the list .*ImageSets/Main/tets.txt, which does not exist; the folder has test, train", "tets"
    )
    with pytest.raises(
        UserError, match=r"voc is a folder without a split; give .*voc:SPLIT with one of its lists"
    ):
        open_detection_data(f"{voc}:trainval", str(voc))
    path = voc / "Annotations" / "000013.xml"
    content = path.read_bytes()
    path.write_bytes(content[:100])
    refused("000013.xml is no XML .* restore it or take 000013 off the list")
    path.unlink()
    refused("cannot read the annotation .*000013.xml .No such file or directory.; complete the download")
    path.write_bytes(content)
    (voc / "JPEGImages" / "000013.jpg").unlink()
    (voc / "JPEGImages" / "000014.jpg").unlink()
    refused("2 of the 5 images of .*test are missing, .*000013.jpg for one; complete the download")
    (voc / "JPEGImages" / "000013.jpg").write_bytes(b"")
    shutil.copy(voc / "JPEGImages" / "000012.jpg", voc / "JPEGImages" / "000014.jpg")
    refused("cannot read the image .*000013.jpg .* restore it or take it out")
    (voc / "JPEGImages" / "000013.jpg").write_text("<html>not found</html>")
    refused("cannot read the image .*000013.jpg")
    lists = voc / "ImageSets" / "Main"
    (lists / "test.txt").write_text("000011\n000012\n000011\n")
    refused("test.txt lists 1 images more than once")
    (lists / "test.txt").write_text("\n")
    refused("test has no images")
    shutil.rmtree(voc / "Annotations")
    refused("needs the folder .*voc/Annotations, which does not exist; .*DETECTRON2_DATASETS")


def first(key: str, value: Any, kind: str = "annotations") -> Callable[[dict[str, Any]], Any]:
    return lambda content: content[kind][0].__setitem__(key, value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (first("bbox", [1, 2, 3]), r"\(id 1\) in .*train.json has the bbox \[1, 2, 3\] instead of .* x, y"),
        (first("bbox", [5, 5, -2, 4]), r"of annotations\[0\] \(id 1\) in .* have the second corner before"),
        (first("bbox", [70, 5, 3, 3]), r"70, 5, 73, 8 of annotations\[0\] .* outside the image of 64 x 64"),
        (first("bbox", [5, 5, float("nan"), 4]), "are not all numbers"),
        (first("category_id", 11), r"annotations\[0\] \(id 1\) .* has the category 11, which is not listed"),
        (first("image_id", 99), r"annotations\[0\] \(id 1\) .* belongs to image 99, which the file"),
        (first("id", 2), "two entries of annotations in .* have the id 2"),
        (first("area", "big"), r"annotations\[0\] \(id 1\) .* has the area 'big'"),
        (first("segmentation", {"size": [9, 9], "counts": [81]}), "has a mask of size .9, 9., not its image"),
        (first("segmentation", {"size": [64, 64], "counts": [81]}), "run lengths that do not add up"),
        (first("segmentation", {"size": [64, 64]}), "has a mask without run lengths"),
        (first("segmentation", [["a"]]), "has a mask that is neither polygons nor run lengths"),
        (first("id", 2, "images"), "two entries of images in .* have the id 2"),
        (first("id", "x", "images"), r"images\[0\] \(id 'x'\) in .* the id 'x' instead of an integer of its"),
        (first("height", None, "images"), r"images\[0\] \(id 1\) in .* the height null instead of its true"),
        (first("width", 60, "images"), "has a mask of size"),
        (first("file_name", 7, "images"), r"images\[0\] \(id 1\) in .* has no file_name"),
        (first("file_name", "x.jpg", "images"), "1 of the 10 images of .* are missing, .*x.jpg for one"),
        (first("name", "trouser", "categories"), "several categories called 'trouser'"),
        (lambda c: c.pop("annotations"), "has no list 'annotations'; give a file of COCO's instances"),
        (lambda c: c.update(categories=[]), "lists no categories"),
        (lambda c: c.update(images=["a"]), "the list 'images' in .* does not consist of objects"),
        (lambda c: c.update(images=[], annotations=[]), "has no images; choose a part that has some"),
        (lambda c: c.update(annotations=[]), "has no object to learn from"),
        (lambda c: c["categories"].append({"id": 11, "name": "hat"}), "give parts with the same classes"),
    ],
)  # fmt: skip
def test_broken_coco_file(coco: Path, change: Callable[[dict[str, Any]], Any], sentence: str) -> None:
    change_json(coco, change)
    with pytest.raises(UserError, match=sentence) as caught:
        open_coco(coco)
    assert "\n" not in str(caught.value) and ";" in str(caught.value)


def test_coco_file_that_is_cut_off_or_absent(coco: Path) -> None:
    path = coco / "annotations" / "instances_val.json"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(UserError, match=r"instances_val.json is no JSON .* it may be cut off: restore it"):
        open_coco(coco)
    path.unlink()
    with pytest.raises(
        UserError, match=r"needs the annotations .*instances_val.json, which cannot be read .No such"
    ):
        open_coco(coco)
    with pytest.raises(UserError, match=re.escape("says nothing of its images; give x.json@FOLDER")):
        open_detection_data("x.json", "y.json")
    with pytest.raises(
        UserError, match=re.escape("'voc_2008_train' names no detection data; take fashion-scenes")
    ):
        open_detection_data("voc_2008_train", "y.json")


def test_own_coco_data_may_be_sparse(coco: Path) -> None:
    """Category ids with gaps in any order, no areas, no crowd flags, polygons, boxes only."""
    content = json.loads((coco / "annotations" / "instances_train.json").read_text())

    def change(content: dict[str, Any]) -> None:
        for category in content["categories"]:
            category["id"] = 100 - 7 * category["id"]
        content["categories"].reverse()
        for item in content["annotations"]:
            item["category_id"] = 100 - 7 * item["category_id"]
            x, y, w, h = item["bbox"]
            item["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h], [1, 2]]
            del item["area"], item["iscrowd"]
        content["annotations"][0]["segmentation"] = [[1, 2, 3, 4]]
        del content["annotations"][1]["segmentation"]

    for name in ("train", "val"):
        change_json(coco, change, name)
    data = open_coco(coco)
    assert data.classes == tuple(reversed(CLASSES)) and not data.has_masks and data.mask_format == "polygon"
    items = [item for record in data.train for item in record["annotations"]]
    expected = content["annotations"]
    assert [data.classes[item["category_id"]] for item in items] == [
        CLASSES[item["category_id"] - 1] for item in expected
    ]
    areas = [item["bbox"][2] * item["bbox"][3] for item in expected]
    assert [item["area"] for item in items] == areas and not any(item["iscrowd"] for item in items)
    assert ["segmentation" in item for item in items] == [False, False] + [True] * (len(items) - 2)
    assert all(len(item["segmentation"]) == 1 for item in items[2:])  # without the polygon of one corner
    remarks = data.train_splits[0].remarks
    assert remarks == (
        "1 objects have no polygon with three corners, annotations[0] for one: their boxes are kept, without "
        "a mask",
        f"2 of {len(items)} objects have no mask, annotations[0] for one: only boxes can be trained and "
        "scored",
        f"{len(items) - 2} objects have polygons without three corners beside others: these are left out",
    )


def test_oddities_are_remarks_and_no_errors(coco: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["annotations"][0]["bbox"][2:] = [0, 4]
        content["annotations"][1]["bbox"] = [60, 3, 9, 9]
        content["images"].append({"id": 77, "file_name": "000001.jpg", "height": 64, "width": 64})

    change_json(coco, change)
    remarks = open_coco(coco).remarks()
    for sentence in ("1 images have no object", "1 boxes have no area", "1 boxes reach more than a pixel"):
        assert any(sentence in remark for remark in remarks)
    path = f"{coco}/annotations/instances_train.json@{coco}/train"
    assert "11 of the 11 test images are training images too" in open_detection_data(path, path).remarks()
    voc_like = open_detection_data("fashion-scenes", "fashion-scenes", kind="voc", scenes=COUNTS)
    present = {item["category_id"] for item in voc_like.test_split.annotations}
    absent = [label for number, label in enumerate(CLASSES) if number not in present]
    assert absent and any(f"no object of the class {absent[0]}" in remark for remark in voc_like.remarks())


def test_fingerprint_follows_content_not_place(coco: Path, voc: Path, folders: Path) -> None:
    for copy, original, open_ in ((coco, folders / "coco", open_coco), (voc, folders / "voc", open_voc)):
        before = open_(original)
        assert open_(copy).train_fingerprint == before.train_fingerprint
        image = next((copy / ("train" if copy is coco else "JPEGImages")).glob("000001.jpg"))
        image.write_bytes(image.read_bytes() + b"\0")
        assert open_(copy).train_fingerprint != before.train_fingerprint
        assert open_(copy).test_fingerprint == before.test_fingerprint
    change_json(coco, lambda content: content["annotations"][0].update(iscrowd=1), "val")
    assert open_coco(coco).test_fingerprint != open_coco(folders / "coco").test_fingerprint
    change_xml(voc, "000013", set_text("object/difficult", "1"))
    assert open_voc(voc).test_fingerprint != open_voc(folders / "voc").test_fingerprint


def test_images_of_any_kind_and_size(voc: Path) -> None:
    """A PNG among the JPEGs, and a photograph on its side, whose annotation is of what EXIF makes of it."""
    images = voc / "JPEGImages"
    Image.open(images / "000001.jpg").resize((80, 64)).save(images / "000001.png")
    (images / "000001.jpg").unlink()
    change_xml(voc, "000001", set_text("size/width", "80"))
    seen = np.random.default_rng(0).integers(0, 256, (80, 64, 3), np.uint8)
    exif = Image.Exif()
    exif[dataset_split.ORIENTATION] = 6  # to be turned by 90 degrees clockwise
    stored = Image.fromarray(np.rot90(seen).copy())
    stored.save(images / "000002.jpg", quality=100, subsampling=0, exif=exif)
    change_xml(voc, "000002", set_text("size/height", "80"))
    data = open_voc(voc)
    assert data.train[0]["file_name"].endswith("000001.png")
    assert read_image(data.train[0]).shape == (64, 80, 3)
    assert abs(read_image(data.train[1]).astype(int) - seen).mean() < 5


@pytest.mark.detectron2
@needs_detectron2
@pytest.mark.parametrize("kind", ["voc", "coco"])
def test_records_are_detectron2s_own(kind: str, folders: Path) -> None:
    """What Detectron2's readers make of the same files, but for the keys that only we have."""
    import_detectron2()
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.data.datasets import load_coco_json, load_voc_instances
    from detectron2.structures import BoxMode

    data = (open_voc if kind == "voc" else open_coco)(folders / kind)
    names = register(data)
    assert register(data) == names
    try:
        for name, split in zip(names, ("train", "test"), strict=True):
            records = DatasetCatalog.get(name)
            assert MetadataCatalog.get(name).thing_classes == list(data.classes)
            if kind == "voc":
                split_name = "trainval" if split == "train" else "test"
                expected = load_voc_instances(str(folders / "voc"), split_name, data.classes)
            else:
                path = "train" if split == "train" else "val"
                annotations = folders / "coco" / "annotations" / f"instances_{path}.json"
                expected = load_coco_json(str(annotations), str(folders / "coco" / path), f"theirs_{path}")
                MetadataCatalog.pop(f"theirs_{path}")
            assert len(records) == len(expected)
            for record, reference in zip(records, expected, strict=True):
                assert {k: record[k] for k in reference if k != "annotations"} == {
                    k: v for k, v in reference.items() if k != "annotations"
                }
                for item, known in zip(record["annotations"], reference["annotations"], strict=True):
                    assert {key: item[key] for key in known} == known
                    assert isinstance(item["bbox_mode"], BoxMode)
                    assert set(item) - set(known) <= {"area", "difficult", "iscrowd"}
    finally:
        for name in names:
            DatasetCatalog.remove(name)
            MetadataCatalog.pop(name)


@pytest.mark.parametrize("kind", ["voc", "coco"])
def test_picture_shows_truth_left_and_detections_right(kind: str, folders: Path, tmp_path: Path) -> None:
    data = (open_voc if kind == "voc" else open_coco)(folders / kind)
    size = 40 if kind == "coco" else 0
    predictions = [
        {
            "image_id": record["image_id"],
            "boxes": np.array([[4, 4, 60, 60], [10, 10, 20, 20]], np.float32),
            "scores": np.array([0.9, 0.2], np.float32),
            "classes": np.array([0, 1]),
            "masks": [full_mask(size)] * 2 if size else None,
        }
        for record in data.test
    ]
    path = tmp_path / "picture.png"
    draw_predictions(path, data.test, predictions, data.classes, count=3)
    sheet = np.asarray(Image.open(path)).astype(int)
    side, gap = 160, 6  # 64 pixels are shown as 160
    assert sheet.shape == (3 * (side + gap) + gap, 2 * (side + gap) + gap, 3)
    left, right = sheet[gap : gap + side, gap : gap + side], sheet[gap : gap + side, side + 2 * gap : -gap]
    plain = np.asarray(Image.fromarray(read_image(data.test[0])).resize((side, side))).astype(int)
    red = np.array([230, 25, 75])
    edge = right[149, 20:140]  # the lower edge of the box that ends at 60 x 2.5
    assert (edge == red).all()
    changed = abs(right - plain).sum(2) > 3
    assert not changed[155:].any()
    assert size or not changed[30:140, 20:140].any()  # the second box is below the least score
    inside = (slice(60, 90), slice(60, 90))
    if size:
        expected = plain[inside] + 0.4 * (red - plain[inside])
        assert abs(right[inside] - expected).max() < 4
    else:
        assert not changed[inside].any()
    assert (abs(left - plain).sum(2) > 3).any()
    before = path.read_bytes()
    broken = [*predictions[:-1], {**predictions[-1], "image_id": "other"}]
    with pytest.raises(ValueError, match="differ by 2 images"):
        draw_predictions(path, data.test, broken, data.classes)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def full_mask(size: int) -> dict[str, Any]:
    from pycocotools import mask as run_lengths

    mask = np.zeros((64, 64), np.uint8, order="F")
    mask[:size, :size] = 1
    return run_lengths.encode(mask)
