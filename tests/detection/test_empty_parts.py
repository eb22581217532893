"""Parts in which nothing could be learnt or scored are refused before a training; images without objects.

python -m pytest tests/detection/test_empty_parts.py
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from siamtransfer.checkpoints.read_backbone import read_backbone
from siamtransfer.detection.config import DetectionOptions
from siamtransfer.detection.data.dataset_split import DetectionSplit, Skeleton
from siamtransfer.detection.data.datasets import DetectionData
from siamtransfer.detection.data.panoptic_pngs import SEGMENTS
from siamtransfer.detection.layered_config import read_layered_config
from siamtransfer.detection.metrics.score_predictions import ApKind
from siamtransfer.detection.tasks import registry
from siamtransfer.detection.tasks.instances import InstancesTask
from siamtransfer.detection.tasks.keypoints import KeypointsTask
from siamtransfer.detection.tasks.objects import ObjectsTask
from siamtransfer.detection.tasks.panoptic import PanopticTask
from siamtransfer.detection.torchvision.instances import InstancesTransfer
from siamtransfer.detection.torchvision.model import Design
from siamtransfer.detection.torchvision.recipe import DetectorRecipe, recipe_of
from siamtransfer.detection.torchvision.training_images import TrainingImages
from siamtransfer.distributed.runtime import start_runtime
from siamtransfer.segmentation.data.check import check_masks
from siamtransfer.segmentation.data.from_arrays import from_masks
from siamtransfer.utils.errors import UserError

pytestmark = pytest.mark.fault
Objects = Sequence[dict[str, Any]]
SMALL = Design(
    masks=True, channels=16, hidden=32, anchors=(12, 18, 24, 36, 48), proposals=(40, 30), sampled=32,
    short_sides=(64,), short_side=64, long_side=96,
)  # fmt: skip


def thing(**keys: Any) -> dict[str, Any]:
    return {
        "bbox": [2, 3, 9, 9],
        "bbox_mode": 1,
        "category_id": 0,
        "iscrowd": 0,
        "area": 81,
        "difficult": False,
    } | keys


def part(name: str, *images: Objects) -> DetectionSplit:
    records = [
        {"file_name": f"{n}.jpg", "image_id": n, "height": 20, "width": 20, "annotations": list(objects)}
        for n, objects in enumerate(images)
    ]
    return DetectionSplit(name, "coco", records, ("dog",), "")


def data_of(train: DetectionSplit, test: DetectionSplit) -> DetectionData:
    return DetectionData((train,), test)


GOOD = part("train", [thing()])


@pytest.mark.parametrize(
    ("metric", "objects", "said"),
    [
        ("coco", [], "test has no object, so that nothing could be scored after the training; test on"),
        ("coco", [thing(iscrowd=1)] * 3, "test has 3 objects and none counts in the score"),
        ("coco", [thing(difficult=True)], None),
        (
            "voc",
            [thing(difficult=True)],
            "test has 1 objects and none counts .* objects that are not difficult",
        ),
        ("voc-all-points", [thing(difficult=True)], "none counts in the score"),
        ("voc", [thing(difficult=True), thing()], None),
        ("coco", [thing(iscrowd=1), thing()], None),
    ],
)
def test_a_test_part_needs_an_object_that_counts(metric: ApKind, objects: Objects, said: str | None) -> None:
    task = InstancesTask(data_of(GOOD, part("test", [], objects)), metric)
    if said is None:
        task.require_objects()
    else:
        with pytest.raises(UserError, match=said):
            task.require_objects()


@pytest.mark.parametrize("objects", [[thing(iscrowd=1)] * 2, [thing(bbox=[2, 3, 0, 5])] * 2])
def test_a_train_part_needs_an_object_to_learn_from(objects: Objects) -> None:
    task = InstancesTask(data_of(part("train", objects), GOOD), "coco")
    with pytest.raises(
        UserError, match=r"train has 2 objects and none to learn from: .*; train on a part with"
    ):
        task.require_objects()


def test_keypoints_and_segments_count_too() -> None:
    skeleton = Skeleton(("nose",), (), ())
    for labelled, refused in ((0, True), (1, False)):
        test = replace(part("test", [thing(num_keypoints=labelled)]), skeleton=skeleton)
        task: ObjectsTask = KeypointsTask(data_of(GOOD, test), (0.1,))
        assert task.has_scored_objects() == (not refused)
    for crowd in (0, 1):
        test = part("test", [])
        test.records[0][SEGMENTS] = [{"id": 1, "category_id": 0, "isthing": False, "iscrowd": crowd}]
        task = PanopticTask(data_of(GOOD, test))
        assert task.has_scored_objects() == (not crowd), "stuff alone counts, too"


def test_held_out_images_need_objects_as_well() -> None:
    """The search scores on them: of four images one has an object, which stays in the train part."""
    order = [[thing()], [], [], []]
    for shift in range(4):
        train = part("train", *order[shift:], *order[:shift])
        task = InstancesTask(data_of(train, GOOD), "coco")
        with pytest.raises(
            UserError, match=r"has no object, so that nothing|has 0 objects and none to learn"
        ):
            task.hold_out(0.25)


@pytest.mark.parametrize("engine", ["torchvision", "detectron2"])
def test_a_study_refuses_before_anything_is_read_or_trained(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        registry, "open_configured_data", lambda *_: data_of(GOOD, part("test", [thing(iscrowd=1)]))
    )
    with pytest.raises(UserError, match="test has 1 objects and none counts in the score"):
        registry.open_task(DetectionOptions(engine=engine), read_layered_config([], []))


def test_masks_of_ones_own_that_are_all_ignored() -> None:
    images = [np.zeros((4, 4, 3), np.uint8)] * 2
    masks = [np.full((4, 4), 255, np.uint8)] * 2
    with pytest.raises(UserError, match=r"every pixel of all 2 masks of .* is ignored; give masks that show"):
        check_masks(from_masks(images, masks, ["a", "b"]))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> DetectionData:
    """Four images of 64 pixels to train on, of which one shows an object and another a crowd."""
    folder = tmp_path_factory.mktemp("images")
    square = thing(bbox=[8, 8, 24, 24], segmentation=[[8, 8, 32, 8, 32, 32, 8, 32]])
    split = part("train", [square | {"iscrowd": 1}], [], [], [square])
    for number, record in enumerate(split.records):
        record |= {"file_name": str(folder / f"{number}.png"), "height": 64, "width": 64}
        pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), np.uint8)
        Image.fromarray(pixels).save(record["file_name"])
    return data_of(split, GOOD)


def test_images_without_objects_are_left_out_unless_the_settings_say_otherwise(scenes: DetectionData) -> None:
    """As in Detectron2, by the same key; the record says which."""
    read, key = read_backbone("random:resnet18:width=8"), "DATALOADER.FILTER_EMPTY_ANNOTATIONS"
    for settings, count, use in (
        ({}, 1, "left out"),
        ({key: True}, 1, "left out"),
        ({key: False}, 4, "negatives"),
    ):
        recipe = replace(recipe_of(settings), design=SMALL, batch=1)
        transfer = InstancesTransfer(read, InstancesTask(scenes, "coco"), recipe)
        assert transfer.count == count
        described = transfer.describe()
        assert described["train_images_with_objects"] == 1
        assert described["train_images_without_objects"] == {"count": 3, "use": use}
        assert ("filter_empty" in transfer.identity()) == (use == "negatives"), "states of older versions"
    with pytest.raises(UserError, match=f"{key} is 'yes'"):
        recipe_of({key: "yes"})


def test_a_negative_is_all_background(scenes: DetectionData) -> None:
    """Its target is empty in all parts, and it teaches the proposals and the classes, but no box and mask."""
    recipe = DetectorRecipe(SMALL, batch=1, filter_empty=False)
    transfer = InstancesTransfer(
        read_backbone("random:resnet18:width=8"), InstancesTask(scenes, "coco"), recipe
    )
    images = TrainingImages(scenes.train, recipe)
    for index in range(3):
        _, target = images[0, index]
        shapes = {name: (value.dtype, tuple(value.shape)) for name, value in target.items()}
        assert shapes == {
            "boxes": (torch.float32, (0, 4)),
            "labels": (torch.int64, (0,)),
            "masks": (torch.uint8, (0, 64, 64)),
        }
    with start_runtime("cpu") as runtime:
        torch.manual_seed(0)
        losses = transfer.losses(transfer.build().train(), [images[0, 0]], runtime)
    zero = {name for name, loss in losses.items() if float(loss.detach()) == 0}
    assert zero == {"loss_box_reg", "loss_mask", "loss_rpn_box_reg"}
    assert losses["loss_classifier"] > 0.1
    assert losses["loss_objectness"] > 0.1
