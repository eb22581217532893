"""Cityscapes' instances: the records are Detectron2's, and every mistake is one sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from siamtransfer.data.scenes.export import SceneCounts
from siamtransfer.data.scenes.export_cityscapes import write_cityscapes
from siamtransfer.data.scenes.scenes import many_object_scene
from siamtransfer.detection.data.datasets import DetectionData, open_detection_data
from siamtransfer.detection.detectron2.compat import import_detectron2, is_installed
from siamtransfer.utils.errors import UserError

pytest.importorskip("cityscapesscripts", reason="pip install 'siamtransfer[cityscapes]'")
pytest.importorskip("shapely", reason="pip install 'siamtransfer[cityscapes]'")
COUNTS = SceneCounts(train=4, test=2, size=64)
FIRST = "scenes/scenes_000000_000001"
CLASSES = ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes in the layout of Cityscapes, never to be changed."""
    root = tmp_path_factory.mktemp("cityscapes") / "cityscapes"
    write_cityscapes(root, COUNTS)
    return root


@pytest.fixture
def root(written: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(written, tmp_path / "cityscapes"))


def open_cityscapes(root: Path) -> DetectionData:
    return open_detection_data("cityscapes:train", "cityscapes:val", root=root)


@pytest.mark.detectron2
@pytest.mark.skipif(not is_installed(), reason="Detectron2 is not installed")
def test_records_are_detectron2_s(written: Path) -> None:
    import_detectron2()
    from detectron2.data.datasets.cityscapes import load_cityscapes_instances

    data = open_detection_data(
        *(f"cityscapes_fine_instance_seg_{split}" for split in ("train", "val")), root=written.parent
    )
    assert data.classes == CLASSES and data.test_split.kind == "cityscapes"
    assert data.mask_format == "polygon" and (len(data.train), len(data.test)) == (4, 2)
    folders = [str(written / kind / "train") for kind in ("leftImg8bit", "gtFine")]
    theirs = {record["image_id"]: record for record in load_cityscapes_instances(*folders)}
    assert [record["image_id"] for record in data.train] == sorted(theirs)
    for index, record in enumerate(data.train):
        expected = theirs[record["image_id"]]
        keys = ("file_name", "height", "width")
        assert [record[key] for key in keys] == [expected[key] for key in keys]
        scene = many_object_scene("train", index, COUNTS.size, COUNTS.seed)
        assert len(record["annotations"]) == sum(scene.labels < 8), "caravans and trailers do not count"
        for ours, their in zip(record["annotations"], expected["annotations"], strict=True):
            assert (ours["bbox"], ours["segmentation"]) == (list(their["bbox"]), their["segmentation"])
            assert (ours["category_id"], ours["iscrowd"]) == (their["category_id"], their["iscrowd"])
        kept = [number for number, label in enumerate(scene.labels) if label < 8]
        areas = [
            item["area"] for item in reversed(record["annotations"])
        ]  # Detectron2 goes from the foremost
        assert areas == pytest.approx([scene.masks[number].sum() for number in kept], rel=0.25)
        with Image.open(record["instance_ids"]) as image:
            ids = np.unique(image)
        assert sorted(ids // 1000)[1:] == sorted(
            [24, 25, 26, 27, 28, 31, 32, 33, 29, 30][k] for k in scene.labels
        )


def outlines(root: Path, change: Callable[[dict], object]) -> None:
    path = root / "gtFine/train" / f"{FIRST}_gtFine_polygons.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def instances(root: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    path = root / "gtFine/train" / f"{FIRST}_gtFine_instanceIds.png"
    with Image.open(path) as image:
        ids = np.array(image)
    Image.fromarray(change(ids)).save(path)


def unknown(ids: np.ndarray) -> np.ndarray:
    """An id that does not exist, beside one of an object that no class counts."""
    ids[0, :5], ids[1, :5] = 77, 9000
    return ids


def remove(name: str) -> Callable[[Path], object]:
    return lambda root: (root / name).unlink()


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda r: shutil.rmtree(r / "gtFine"), "needs the folder .*gtFine/train, .* by --root"),
        (remove(f"gtFine/train/{FIRST}_gtFine_labelIds.png"), "1 of the 4 images .* have no mask"),
        (
            remove(f"gtFine/train/{FIRST}_gtFine_instanceIds.png"),
            "1 of the 4 images of cityscapes:train have no gtFine_instanceIds.png, .*scenes_000000_000001_gt",
        ),
        (remove(f"gtFine/train/{FIRST}_gtFine_polygons.json"), "have no gtFine_polygons.json"),
        (lambda r: (r / "leftImg8bit/train/readme.txt").touch(), "holds 1 files that are not .*readme.txt"),
        (lambda r: (r / "leftImg8bit/train/scenes/a.jpg").touch(), "not CITY/CITY_000000_000019_left.*a.jpg"),
        (
            lambda r: shutil.copytree(r / "leftImg8bit/train/scenes", r / "leftImg8bit/train/again")
            and shutil.copytree(r / "gtFine/train/scenes", r / "gtFine/train/again"),
            "two cities in .* have an image scenes_000000_000001",
        ),
        (lambda r: outlines(r, lambda c: c.update(imgWidth=True)), "its image has true x 64 pixels; restore"),
        (lambda r: outlines(r, lambda c: c.update(imgHeight=10**400)), "its image has 64 x 1000"),
        (
            lambda r: outlines(r, lambda c: c["objects"][0].update(polygon=[[0, 0], [1e9, 0], [1, 1]])),
            "a point far from its image of 64 x 64 pixels; mend it",
        ),
        (
            lambda r: outlines(r, lambda c: c["objects"][0].update(polygon=[[0, 0], [10**400, 0], [1, 1]])),
            "holds no outlines of Cityscapes .OverflowError",
        ),
        (lambda r: outlines(r, lambda c: c["objects"][0].update(label=None)), "a label is no text"),
        (lambda r: outlines(r, lambda c: c.update(objects=[7])), "holds no outlines of Cityscapes"),
        (lambda r: instances(r, lambda ids: ids[:-1]), "instanceIds.png has 64 x 63 pixels and .*json"),
        (
            lambda r: instances(r, unknown),
            r"1 instanceIds.png hold ids that Cityscapes does not have: 77 \(5 pixels\); the first file is",
        ),
        (
            lambda r: instances(r, lambda ids: np.stack([ids.astype(np.uint8)] * 3, -1)),
            "instanceIds.png has the mode RGB instead of grey with 16 bits",
        ),
        (
            lambda r: (r / f"gtFine/train/{FIRST}_gtFine_instanceIds.png").write_bytes(b"no image"),
            "cannot read .*instanceIds.png",
        ),
        (
            lambda r: outlines(r, lambda c: c["objects"].append({**c["objects"][0], "label": "cat"})),
            r"1 polygons.json hold labels that Cityscapes does not have: cat \(1 outlines\)",
        ),
        (lambda r: outlines(r, lambda c: c.pop("imgWidth")), "holds no outlines of Cityscapes .*imgWidth"),
        (
            lambda r: outlines(r, lambda c: c["objects"][0].update(polygon=[[1, 2], [3, 4]])),
            "an outline of the label road in .* has 2 points",
        ),
    ],
)  # fmt: skip
def test_mistakes(root: Path, damage: Callable[[Path], object], sentence: str) -> None:
    damage(root)
    with pytest.raises(UserError, match=sentence) as caught:
        open_cityscapes(root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("split", ["trian", "", "test"])
def test_splits_are_those_that_are_annotated(written: Path, split: str) -> None:
    with pytest.raises(UserError, match=f"Cityscapes has no split '{split}'; take train or val"):
        open_detection_data(f"cityscapes:{split}", "cityscapes:val", root=written)


@pytest.mark.detectron2
@pytest.mark.skipif(not is_installed(), reason="Detectron2 is not installed")
def test_a_part_without_instances_and_a_group(root: Path) -> None:
    """A group trains as a crowd, a deleted outline not at all; without objects there is nothing to do."""

    def rename(content: dict) -> None:
        for item in content["objects"][1:]:
            item["label"] = "cargroup"
        content["objects"].append({"deleted": 1, "label": "nonsense", "polygon": []})

    outlines(root, rename)
    record = open_cityscapes(root).train[0]
    assert {item["iscrowd"] for item in record["annotations"]} == {1}
    for path in (root / "gtFine/train").rglob("*.json"):
        content = json.loads(path.read_text())
        path.write_text(json.dumps(content | {"objects": content["objects"][:1]}))
    with pytest.raises(UserError, match="cityscapes:train has no object of person, rider"):
        open_cityscapes(root)
