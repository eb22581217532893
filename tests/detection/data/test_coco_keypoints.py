"""Keypoints in COCO's format: read as Detectron2 reads them, and what is broken named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from siamtransfer.data.scenes.export import SceneCounts
from siamtransfer.data.scenes.export_coco_tasks import KEYPOINTS, write_coco_keypoints
from siamtransfer.data.scenes.scenes import many_object_scene
from siamtransfer.detection.data.coco_keypoints import PERSON, read_skeleton
from siamtransfer.detection.data.datasets import DetectionData, open_detection_data
from siamtransfer.detection.data.keypoint_splits import open_keypoints
from siamtransfer.utils.errors import UserError

COUNTS = SceneCounts(train=12, test=3, size=64, seed=1)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keypoints") / "scenes"
    write_coco_keypoints(folder, COUNTS)
    return folder


def split(folder: Path, name: str) -> str:
    return f"{folder}/annotations/person_keypoints_{name}.json@{folder}/{name}"


def open_scenes(folder: Path) -> DetectionData:
    return open_detection_data(split(folder, "train"), split(folder, "val"), opener=open_keypoints)


def test_points_are_the_outermost_pixels_of_the_scenes(scenes: Path) -> None:
    data = open_scenes(scenes)
    assert data.skeleton is not None and data.skeleton.names == KEYPOINTS
    assert data.skeleton.flips == (("left", "right"),)
    assert data.skeleton.edges == ((0, 1), (0, 2), (1, 3), (2, 3))
    hidden = 0
    for index, record in enumerate(data.train):
        scene = many_object_scene("train", index, COUNTS.size, COUNTS.seed)
        for item, box, mask, visible in zip(
            record["annotations"], scene.boxes, scene.masks, scene.visible, strict=True
        ):
            points = item["keypoints"].reshape(4, 3)
            if visible < 0.5:
                hidden += 1
                assert item["num_keypoints"] == 0 and not points[:, 2].any()
                continue
            assert item["num_keypoints"] == 4 and (points[:, 2] == 2).all()
            x, y = np.floor(points[:, :2]).astype(int).T
            assert mask[y, x].all(), "each point is on the object"
            left, top, right, bottom = box
            assert (y[0], x[1], x[2], y[3]) == (top, left, right - 1, bottom - 1)
    assert hidden, "some objects are covered too much"
    assert any("objects have no labelled keypoint" in remark for remark in data.remarks())


def test_the_pairs_of_cocos_persons() -> None:
    skeleton = read_skeleton([{"id": 1, "name": "person", "keypoints": list(PERSON)}], "x.json")
    assert len(skeleton.flips) == 8 and ("left_ankle", "right_ankle") in skeleton.flips
    assert all(left.replace("left", "right") == right for left, right in skeleton.flips)
    drawn_by_none = {"id": 1, "name": "person", "keypoints": list(PERSON), "skeleton": None}
    assert read_skeleton([drawn_by_none], "x.json") == skeleton


def keypoints(change: Callable[[list[Any]], Any]) -> Callable[[dict[str, Any]], None]:
    return lambda content: change(content["annotations"][0]["keypoints"])


def category(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["categories"][0].update({key: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            keypoints(lambda values: values.pop()),
            r"annotations\[0\] \(id 1\) .* has 11 numbers of keypoints, not 12",
        ),
        (keypoints(lambda values: values.__setitem__(2, 3)), "keypoint 'top' with the visibility 3"),
        (keypoints(lambda values: values.__setitem__(0, float("nan"))), "keypoint 'top' at nan"),
        (keypoints(lambda values: values.__setitem__(0, "x")), "no list of numbers 'keypoints'"),
        (lambda content: content["annotations"][0].pop("keypoints"), "no list of numbers 'keypoints'"),
        (category("keypoints", None), "the category 'garment' .* has no list of names 'keypoints'"),
        (category("keypoints", ["a", "a", "b", "c"]), "several keypoints called 'a'"),
        (category("keypoints", ["a", "left", "b", "c"]), "the keypoint 'left' and not 'right'"),
        (category("keypoints", ["a", "b", "right", "c"]), "the keypoint 'right' and not 'left'"),
        (category("skeleton", [[1, 5]]), r"joins \[1, 5\]; a pair is two numbers from 1 to 4"),
        (
            lambda content: [item.update(keypoints=[0] * 12) for item in content["annotations"]],
            "no object has a labelled keypoint",
        ),
        (
            lambda content: content["categories"].append({"id": 2, "name": "hat", "keypoints": ["tip"]}),
            "'hat' .* has other keypoints than 'garment'",
        ),
    ],
)
def test_what_is_broken_is_named(
    scenes: Path, tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    folder = shutil.copytree(scenes, tmp_path / "broken")
    path = folder / "annotations" / "person_keypoints_train.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        open_scenes(folder)


def test_splits_with_other_keypoints_and_points_outside(scenes: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(scenes, tmp_path / "other")
    path = folder / "annotations" / "person_keypoints_val.json"
    content = json.loads(path.read_text())
    content["categories"][0]["keypoints"] = ["n", "w", "e", "s"]
    labelled = next(item for item in content["annotations"] if item["num_keypoints"])
    labelled["keypoints"][0] = 99
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"has the keypoints n, .* give parts with the same keypoints"):
        open_scenes(folder)
    data = open_detection_data(split(folder, "val"), split(folder, "val"), opener=open_keypoints)
    assert any("1 labelled keypoints lie outside their image" in remark for remark in data.remarks())
    assert any("keeps the number of each" in remark for remark in data.remarks())


def test_names() -> None:
    with pytest.raises(
        UserError, match=r"keypoints_coco_2017_train needs the annotations .*person_keypoints"
    ):
        open_keypoints("keypoints_coco_2017_train", "train", Path("nowhere"), COUNTS)
    with pytest.raises(UserError, match=r"'coco_2017_train' names no data with keypoints; take .*@IMAGES"):
        open_keypoints("coco_2017_train", "train", Path("nowhere"), COUNTS)
