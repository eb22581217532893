"""Many-object scenes on disk: read back by an XML parser, Pillow and pycocotools, whole or absent."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import write_scenes
from PIL import Image

from siamtransfer.data.scenes import export as detection_folders
from siamtransfer.data.scenes.export import SceneCounts, run_lengths, write_coco, write_voc
from siamtransfer.data.scenes.objects import CLASSES
from siamtransfer.data.scenes.scenes import Scene, many_object_scene
from siamtransfer.utils.errors import UserError

COUNTS = SceneCounts(train=12, test=4, size=64, seed=1)


def scene_of(number: int) -> Scene:
    """The scene behind the file NNNNNN, numbered from 1, test scenes after the training scenes."""
    split, index = ("train", number - 1) if number <= COUNTS.train else ("test", number - 1 - COUNTS.train)
    return many_object_scene(split, index, COUNTS.size, COUNTS.seed)


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("voc") / "VOC2007"
    write_voc(folder, COUNTS)
    return folder


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("coco") / "scenes"
    write_coco(folder, COUNTS)
    return folder


def test_voc_lists(voc: Path) -> None:
    for task in ("Main", "Segmentation"):
        lists = {p.stem: p.read_text().split() for p in (voc / "ImageSets" / task).iterdir()}
        assert lists["trainval"] == [f"{k:06d}" for k in range(1, 13)]
        assert lists["train"] + lists["val"] == lists["trainval"] and len(lists["val"]) == 2
        assert lists["test"] == [f"{k:06d}" for k in range(13, 17)]
    assert {p.stem for p in (voc / "JPEGImages").iterdir()} == {f"{k:06d}" for k in range(1, 17)}


def test_voc_annotations_read_back(voc: Path) -> None:
    flags = set()
    for number in range(1, 17):
        scene = scene_of(number)
        tree = ET.parse(voc / "Annotations" / f"{number:06d}.xml")
        assert tree.findtext("filename") == f"{number:06d}.jpg"
        assert [tree.findtext(f"size/{tag}") for tag in ("width", "height", "depth")] == ["64", "64", "3"]
        items = tree.findall("object")
        assert [item.findtext("name") for item in items] == [CLASSES[label] for label in scene.labels]
        for item, (left, top, right, bottom), visible in zip(items, scene.boxes, scene.visible, strict=True):
            corners = [int(item.findtext(f"bndbox/{tag}") or -1) for tag in ("xmin", "ymin", "xmax", "ymax")]
            assert corners == [left + 1, top + 1, right, bottom]
            assert item.findtext("truncated") == str(int(visible < 0.95))
            assert item.findtext("difficult") == str(int(visible < 0.5))
            flags.add((item.findtext("truncated"), item.findtext("difficult")))
    assert ("0", "0") in flags and ("1", "0") in flags


def test_voc_images_and_masks_read_back(voc: Path) -> None:
    for number in (1, 7, 13):
        scene, name = scene_of(number), f"{number:06d}"
        image = np.asarray(Image.open(voc / "JPEGImages" / f"{name}.jpg").convert("RGB")).astype(int)
        assert image.shape == scene.image.shape and abs(image - scene.image).mean() < 8
        instance, semantic = (
            np.asarray(Image.open(voc / f"Segmentation{kind}" / f"{name}.png"))
            for kind in ("Object", "Class")
        )
        assert (instance > 0).sum() == scene.masks.sum()
        for k, (mask, label) in enumerate(zip(scene.masks, scene.labels, strict=True), 1):
            assert np.array_equal(instance == k, mask)
            assert (semantic[mask] == label + 1).all()


def test_voc_palette_is_the_known_one(voc: Path) -> None:
    image = Image.open(voc / "SegmentationClass" / "000001.png")
    assert image.mode == "P"
    palette = np.array(image.getpalette()).reshape(-1, 3)
    assert palette[[1, 2, 3, 4, 8, 15]].tolist() == [
        [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128], [64, 0, 0], [192, 128, 128],
    ]  # fmt: skip


def test_voc_class_names_serve_as_file_names() -> None:
    """The usual VOC evaluation writes one file of detections per class name."""
    assert not any("/" in name for name in CLASSES)


def test_coco_reads_back_with_equal_masks(coco: Path) -> None:
    pycocotools = pytest.importorskip("pycocotools.coco")
    for part, first, count in (("train", 1, 12), ("val", 13, 4)):
        api = pycocotools.COCO(coco / "annotations" / f"instances_{part}.json")
        assert api.getImgIds() == list(range(first, first + count))
        assert [c["name"] for c in api.loadCats(api.getCatIds())] == list(CLASSES)
        for number in api.getImgIds():
            scene, record = scene_of(number), api.loadImgs(number)[0]
            assert Image.open(coco / part / record["file_name"]).size == (record["width"], record["height"])
            annotations = api.loadAnns(api.getAnnIds(imgIds=number))
            assert len(annotations) == len(scene.labels)
            for k, annotation in enumerate(annotations):
                assert np.array_equal(api.annToMask(annotation).astype(bool), scene.masks[k])
                left, top, right, bottom = scene.boxes[k].tolist()
                assert annotation["bbox"] == [left, top, right - left, bottom - top]
                assert annotation["area"] == scene.masks[k].sum() and annotation["iscrowd"] == 0
                assert annotation["category_id"] == scene.labels[k] + 1


def test_coco_evaluation_of_the_truth_is_perfect(coco: Path) -> None:
    pycocotools = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    api = pycocotools.COCO(coco / "annotations" / "instances_train.json")
    results = [
        {key: a[key] for key in ("image_id", "category_id", "bbox")}
        | {"segmentation": api.annToRLE(a), "score": 1}
        for a in api.loadAnns(api.getAnnIds())
    ]
    for kind in ("bbox", "segm"):
        found = api.loadRes([dict(result) for result in results])
        step_report = evaluation.COCOeval(api, found, kind)
        step_report.evaluate()
        step_report.accumulate()
        step_report.summarize()
        assert step_report.stats[0] == pytest.approx(1)


def test_coco_ids_are_unique_and_numbers_plain(coco: Path) -> None:
    for part in ("train", "val"):
        content = json.loads((coco / "annotations" / f"instances_{part}.json").read_text())
        ids = [annotation["id"] for annotation in content["annotations"]]
        assert ids == list(range(1, len(ids) + 1))


@pytest.mark.parametrize("first", [False, True])
def test_run_lengths(first: bool) -> None:
    mask = np.array([[first, False, True], [True, True, False]])
    assert run_lengths(mask) == ([0, 2, 1, 2, 1] if first else [1, 1, 1, 2, 1])
    assert run_lengths(np.zeros((2, 3), bool)) == [6]
    assert run_lengths(np.ones((2, 3), bool)) == [0, 6]


def test_a_set_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails_midway(split: str, index: int, size: int, seed: int) -> Scene:
        if index == 2:
            raise KeyboardInterrupt
        assert not (tmp_path / "set").exists() or not any((tmp_path / "set").iterdir())
        return many_object_scene(split, index, size, seed)

    monkeypatch.setattr(detection_folders, "many_object_scene", fails_midway)
    for write in (write_voc, write_coco):
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "set", COUNTS)
        assert list(tmp_path.iterdir()) == []


def test_only_an_empty_folder_is_taken(tmp_path: Path) -> None:
    few = SceneCounts(train=4, test=2, size=32)
    (tmp_path / "empty").mkdir()
    write_coco(tmp_path / "empty", few)
    before = sorted(tmp_path.rglob("*"))
    for write in (write_voc, write_coco):
        with pytest.raises(UserError, match="not an empty folder"):
            write(tmp_path / "empty", few)
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="not an empty folder"):
        write_voc(tmp_path / "file", few)
    with pytest.raises(UserError, match="cannot write"):
        write_voc(tmp_path / "file" / "below", few)


def test_program(tmp_path: Path) -> None:
    words = ["voc", str(tmp_path / "out"), "--train", "5", "--test", "3", "--size", "32", "--seed", "9"]
    document = write_scenes.main(words)
    assert document["metrics"] == {"scenes/train": 5, "scenes/test": 3}
    assert document["protocol"] == {"format": "voc", "size": 32, "seed": 9}
    assert len(list((tmp_path / "out" / "JPEGImages").iterdir())) == 8
    with pytest.raises(UserError, match="not an empty folder"):
        write_scenes.main(words)
    with pytest.raises(UserError, match="--train is 1"):
        write_scenes.main(["voc", str(tmp_path / "other"), "--train", "1"])
