"""Panoptic annotations in COCO's format: JSON and PNGs agree with the scenes, and what is broken is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from siamtransfer.data.scenes.export import SceneCounts
from siamtransfer.data.scenes.export_coco_tasks import write_coco_panoptic
from siamtransfer.data.scenes.objects import CLASSES
from siamtransfer.data.scenes.scenes import many_object_scene
from siamtransfer.detection.data.datasets import DetectionData, open_detection_data
from siamtransfer.detection.data.panoptic_pngs import (
    SEGMENT_FILE,
    SEGMENTS,
    read_segment_ids,
    semantic_target,
)
from siamtransfer.detection.data.panoptic_splits import open_panoptic
from siamtransfer.detection.detectron2.compat import import_detectron2, is_installed
from siamtransfer.utils.errors import UserError

COUNTS = SceneCounts(train=5, test=2, size=64, seed=1)
IGNORE = 255


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("panoptic") / "scenes"
    write_coco_panoptic(folder, COUNTS)
    return folder


def open_scenes(folder: Path) -> DetectionData:
    names = [f"{folder}/annotations/panoptic_{name}.json@{folder}/{name}" for name in ("train", "val")]
    return open_detection_data(*names, opener=open_panoptic)


def test_segments_are_those_of_the_scenes(scenes: Path) -> None:
    data = open_scenes(scenes)
    assert data.classes == CLASSES and data.stuff == ("background",)
    for index, record in enumerate(data.train):
        scene = many_object_scene("train", index, COUNTS.size, COUNTS.seed)
        ids = read_segment_ids(record[SEGMENT_FILE])
        things = [segment for segment in record[SEGMENTS] if segment["isthing"]]
        assert [segment["category_id"] for segment in things] == scene.labels.tolist()
        for segment, mask in zip(things, scene.masks, strict=True):
            assert np.array_equal(ids == segment["id"], mask)
        target = semantic_target(ids, record[SEGMENTS], len(CLASSES), IGNORE)
        assert np.array_equal(target, np.where(scene.masks.any(axis=0), 0, 1))
    (background,) = [segment for segment in data.test[0][SEGMENTS] if not segment["isthing"]]
    assert background["category_id"] == len(CLASSES)
    assert (semantic_target(np.zeros((2, 2), np.int32), [], 3, IGNORE) == IGNORE).all(), "void"


def test_json_and_pngs_move_the_fingerprint(scenes: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(scenes, tmp_path / "copy")
    first = open_scenes(folder).train_fingerprint
    assert first == open_scenes(scenes).train_fingerprint, "the folder does not matter"
    path = folder / "annotations" / "panoptic_train.json"
    path.write_text(path.read_text() + "\n")
    changed = open_scenes(folder).train_fingerprint
    assert changed != first
    png = folder / "panoptic_train" / "000001.png"
    Image.fromarray(np.array(Image.open(png))[:, ::-1]).save(png)
    assert open_scenes(folder).train_fingerprint != changed


@pytest.mark.detectron2
@pytest.mark.skipif(
    not is_installed(), reason="Detectron2 is not installed: python scripts/get_detectron2.py"
)
def test_the_mapper_makes_what_detectron2_reads_from_semantic_pngs(scenes: Path, tmp_path: Path) -> None:
    """Equal to Detectron2's DatasetMapper, whose target is the PNG that its own script would have written."""
    import_detectron2()
    import torch
    from detectron2.config import get_cfg
    from detectron2.data import DatasetMapper
    from detectron2.utils.env import seed_all_rng

    from siamtransfer.detection.detectron2.catalog import with_box_modes
    from siamtransfer.detection.detectron2.panoptic_mapper import PanopticMapper

    cfg = get_cfg()
    cfg.MODEL.MASK_ON, cfg.MODEL.ROI_HEADS.NUM_CLASSES = True, len(CLASSES)
    cfg.INPUT.MASK_FORMAT, cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.CROP.ENABLED = "bitmask", (48, 80), True
    for seed, record in enumerate(with_box_modes(open_scenes(scenes).train)):
        target = semantic_target(read_segment_ids(record[SEGMENT_FILE]), record[SEGMENTS], 10, IGNORE)
        Image.fromarray(target).save(tmp_path / "semantic.png")
        seed_all_rng(seed)
        ours = PanopticMapper(cfg)(record)
        seed_all_rng(seed)
        theirs = DatasetMapper(cfg)({**record, "sem_seg_file_name": str(tmp_path / "semantic.png")})
        assert torch.equal(ours["image"], theirs["image"])
        assert torch.equal(ours["sem_seg"], theirs["sem_seg"])
        assert torch.equal(ours["instances"].gt_boxes.tensor, theirs["instances"].gt_boxes.tensor)
        assert torch.equal(ours["instances"].gt_masks.tensor, theirs["instances"].gt_masks.tensor)


def in_json(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def break_it(folder: Path) -> None:
        path = folder / "annotations" / "panoptic_train.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return break_it


def repaint(change: Callable[[np.ndarray], Any]) -> Callable[[Path], None]:
    def break_it(folder: Path) -> None:
        path = folder / "panoptic_train" / "000001.png"
        Image.fromarray(change(np.array(Image.open(path)))).save(path)

    return break_it


def no_pngs(folder: Path) -> None:
    shutil.rmtree(folder / "panoptic_train")


def cut_off(folder: Path) -> None:
    path = folder / "panoptic_train" / "000002.png"
    path.write_bytes(path.read_bytes()[:80])


def painted(pixels: np.ndarray) -> np.ndarray:
    pixels[0, 0] = 77, 0, 0
    return pixels


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (no_pngs, "needs the PNGs of .*panoptic_train.json in the folder"),
        (cut_off, r"cannot read the panoptic PNG .*000002\.png"),
        (lambda folder: (folder / "panoptic_train/000003.png").unlink(), r"cannot read .*000003\.png"),
        (lambda folder: (folder / "annotations/instances_train.json").unlink(), "instances_train.json"),
        (repaint(painted), r"000001\.png has the segment 77, which the JSON does not list"),
        (repaint(lambda pixels: pixels[:-1]), r"000001\.png is 64 x 63 pixels and its image 64 x 64"),
        (repaint(lambda pixels: pixels[..., 0]), "has the mode L, and panoptic PNGs are RGB"),
        (
            in_json(lambda content: content["annotations"][0]["segments_info"][0].update(id=90)),
            "has the segment 11, which the JSON does not list",
        ),
        (
            in_json(
                lambda content: content["annotations"][0]["segments_info"].append({"id": 9, "category_id": 1})
            ),
            "has no pixel of the segment 9 that the JSON lists",
        ),
        (
            in_json(lambda content: content["annotations"][0]["segments_info"][0].update(category_id=50)),
            "a segment of the category 50, which is not listed",
        ),
        (in_json(lambda content: content["annotations"].pop(1)), r"1 of the 5 images .* are not in"),
        (in_json(lambda content: content.pop("annotations")), "no list of objects 'annotations'"),
        (in_json(lambda content: content["categories"].pop(-1)), "no category of stuff"),
        (
            in_json(lambda content: content["categories"].pop(0)),
            "has the things .* and the file of instances",
        ),
        (in_json(lambda content: content["categories"][0].pop("isthing")), "an `isthing` of 0 or 1"),
        (
            in_json(lambda content: content["annotations"][0].update(image_id=[1])),
            r"the image_id \[1\] instead",
        ),
        (
            in_json(lambda content: content["annotations"].append(content["annotations"][0])),
            "has several annotations of the image 1; give each image one",
        ),
        (
            in_json(lambda content: content["annotations"][0].update(file_name="../000001.png")),
            "which leads out of the folder",
        ),
        (
            in_json(lambda content: content["annotations"][0]["segments_info"].insert(0, 7)),
            r"has under segments_info\[0\] 7, which is no segment",
        ),
        (
            in_json(lambda content: content["annotations"][0]["segments_info"][0].update(category_id=[])),
            r"a segment of the category \[\], which is not listed",
        ),
        (
            in_json(lambda content: content["annotations"][0]["segments_info"][0].update(id=True)),
            "a segment with the id true; give each a positive id",
        ),
        (
            in_json(lambda content: content["annotations"][0]["segments_info"][0].update(iscrowd=None)),
            "with the iscrowd null; take 0 or 1",
        ),
        (repaint(lambda pixels: np.zeros((3000, 5000, 3), np.uint8)), "is 5000 x 3000 pixels and its image"),
    ],
)
def test_what_is_broken_is_named(
    scenes: Path, tmp_path: Path, break_it: Callable[[Path], Any], message: str
) -> None:
    folder = shutil.copytree(scenes, tmp_path / "broken")
    break_it(folder)
    with pytest.raises(UserError, match=message):
        open_scenes(folder)


def test_names() -> None:
    with pytest.raises(UserError, match=r"'coco_2017_train' names no panoptic data; take .*_separated"):
        open_panoptic("coco_2017_train", "train", Path("nowhere"), COUNTS)
    with pytest.raises(UserError, match="is not called panoptic_"):
        open_panoptic("x.json@y", "train", Path("nowhere"), COUNTS)
    with pytest.raises(UserError, match="coco_2017_val_panoptic_separated needs the PNGs"):
        open_panoptic("coco_2017_val_panoptic_separated", "test", Path("nowhere"), COUNTS)
