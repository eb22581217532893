"""LVIS's annotations: the records are Detectron2's, and every mistake is one sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from siamtransfer.data.scenes.export import SceneCounts
from siamtransfer.data.scenes.export_lvis import write_lvis
from siamtransfer.data.scenes.objects import CLASSES
from siamtransfer.detection.data.datasets import DetectionData, open_detection_data
from siamtransfer.detection.detectron2.compat import import_detectron2, is_installed
from siamtransfer.utils.errors import UserError

COUNTS = SceneCounts(train=6, test=3, size=64)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes in the layout of LVIS, never to be changed."""
    root = tmp_path_factory.mktemp("lvis") / "root"
    write_lvis(root, COUNTS)
    return root


@pytest.fixture
def root(written: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(written, tmp_path / "root"))


def open_lvis(root: Path) -> DetectionData:
    return open_detection_data("lvis_v1_train", "lvis_v1_val", root=root)


def change(root: Path, what: Callable[[dict[str, Any]], object], part: str = "val") -> None:
    path = root / "lvis" / f"lvis_v1_{part}.json"
    content = json.loads(path.read_text())
    what(content)
    path.write_text(json.dumps(content))


@pytest.mark.detectron2
@pytest.mark.skipif(not is_installed(), reason="Detectron2 is not installed")
@pytest.mark.skipif(find_spec("lvis") is None, reason="pip install --no-deps lvis")
def test_records_are_detectron2_s(written: Path) -> None:
    from siamtransfer.detection.data.dataset_packages import import_lvis

    import_detectron2()
    import_lvis()
    from detectron2.data.datasets.lvis import load_lvis_json

    data = open_lvis(written)
    assert data.classes == CLASSES and data.test_split.kind == "lvis"
    assert data.train_splits[0].category_ids == tuple(range(1, 11))
    assert "lvis_v1_val: 3 rare, 3 common, 4 frequent classes" in data.remarks()
    theirs = load_lvis_json(str(written / "lvis/lvis_v1_train.json"), f"{written}/coco/")
    assert len(theirs) == len(data.train) == 6
    for ours, their in zip(data.train, theirs, strict=True):
        assert {key: ours[key] for key in their if key != "annotations"} == {
            key: value for key, value in their.items() if key != "annotations"
        }
        for mine, other in zip(ours["annotations"], their["annotations"], strict=True):
            assert {key: mine[key] for key in other} == other
    assert any(record["not_exhaustive_category_ids"] for record in data.train)


def test_own_files_in_which_test_lists_fewer_classes_and_no_urls(root: Path) -> None:
    def simplify(content: dict[str, Any]) -> None:
        used = {item["category_id"] for item in content["annotations"]}
        content["categories"] = [item for item in content["categories"] if item["id"] in used]
        for image in content["images"]:
            image["file_name"] = "/".join(image.pop("coco_url").split("/")[-2:])
            image["neg_category_ids"] = []

    before = open_lvis(root)
    change(root, simplify)
    names = [f"lvis:{root}/lvis/lvis_v1_{part}.json@{root}/coco" for part in ("train", "val")]
    data = open_detection_data(*names)
    assert data.classes == CLASSES
    assert data.test_split.annotations == before.test_split.annotations
    with pytest.raises(UserError, match="says nothing of its images; give lvis:ANNOTATIONS"):
        open_detection_data(names[0], names[1].partition("@")[0])


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        (
            lambda c: c["categories"][2].pop("frequency"),
            "the category 'pullover' in .* has the frequency null instead of r, c or f; give a file of LVIS",
        ),
        (
            lambda c: c["categories"][2].update(name="jumper"),
            r"has 1 categories that lvis_v1_train has not under the same id: jumper \(3\); .* same version",
        ),
        (lambda c: c["images"][1].pop("neg_category_ids"), "image 8 in .* has no list .* under neg_cat"),
        (
            lambda c: c["images"][1].update(not_exhaustive_category_ids=[3, 44]),
            "image 8 in .* names under not_exhaustive_category_ids the categories 44, which are not listed",
        ),
        (lambda c: c["images"][1].update(coco_url=3), "image 8 in .* has the coco_url 3; mend it"),
        (lambda c: c["images"][1].update(coco_url="http://x/val2017/9.jpg"), "1 of the 3 images .* missing"),
        (lambda c: c["annotations"][0].update(category_id=99), "has the category 99, which is not listed"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2]), "has the bbox"),
        (lambda c: c.pop("annotations"), "has no list 'annotations'"),
        (lambda c: c["categories"][2].update(frequency=[]), r"the frequency \[\] instead of r, c or f"),
        (lambda c: c["categories"][2].update(id=[3]), r"categories\[2\] .* the id \[3\] instead of"),
        (lambda c: c["annotations"][0].update(category_id=1.0), "the category_id 1.0, and LVIS's eval"),
        (lambda c: c["annotations"][0].pop("area"), "has no area, which LVIS's evaluation needs"),
        (
            lambda c: c["annotations"][0].update(segmentation=[[1, 2, 3, 4]]),
            "has a polygon without three corners, and readers of LVIS take none",
        ),
        (lambda c: c["images"][1].update(neg_category_ids=[1.0]), "image 8 .* has no list of category ids"),
        (lambda c: c["images"][1].update(neg_category_ids=[10**400]), "under neg_category_ids .* 1000"),
        (lambda c: c["images"][1].update(coco_url="http://x/../9.jpg"), "which leads out of the folder"),
    ],
)  # fmt: skip
def test_mistakes(root: Path, what: Callable[[dict[str, Any]], object], sentence: str) -> None:
    change(root, what)
    with pytest.raises(UserError, match=sentence) as caught:
        open_lvis(root)
    assert "\n" not in str(caught.value)


def test_data_of_another_kind_beside_it(written: Path) -> None:
    images = f"{written}/lvis/lvis_v1_train.json@{written}/coco"
    with pytest.raises(UserError, match=r"images\[0\] \(id 1\) in .* has no file_name"):
        open_detection_data(images, "lvis_v1_val", root=written)


def test_contradictory_lists_are_remarked(root: Path) -> None:
    def contradict(content: dict[str, Any]) -> None:
        item = content["annotations"][0]
        image = next(image for image in content["images"] if image["id"] == item["image_id"])
        image["neg_category_ids"].append(item["category_id"])

    change(root, contradict)
    assert any(
        "1 classes are among neg_category_ids of an image" in remark for remark in open_lvis(root).remarks()
    )
