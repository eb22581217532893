"""Which task a layered configuration asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from siamtransfer.detection.config import DetectionOptions
from siamtransfer.detection.data.configured import open_configured_data
from siamtransfer.detection.data.keypoint_splits import open_keypoints
from siamtransfer.detection.data.panoptic_splits import open_panoptic
from siamtransfer.detection.data.semantic_data import open_semantic_data
from siamtransfer.detection.layered_config import LayeredConfig
from siamtransfer.detection.tasks.cityscapes import CityscapesTask
from siamtransfer.detection.tasks.instances import InstancesTask
from siamtransfer.detection.tasks.keypoints import KeypointsTask, stated_sigmas
from siamtransfer.detection.tasks.lvis import LvisTask
from siamtransfer.detection.tasks.objects import ObjectsTask
from siamtransfer.detection.tasks.panoptic import PanopticTask
from siamtransfer.detection.tasks.semantic import SemanticTask
from siamtransfer.detection.tasks.task import Task
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say

META_ARCHITECTURE = "MODEL.META_ARCHITECTURE"
SEMANTIC, PANOPTIC = ("FCNSegmentor", "SemanticSegmentor"), "PanopticFPN"
KEYPOINT_ON, OKS_SIGMAS = "MODEL.KEYPOINT_ON", "TEST.KEYPOINT_OKS_SIGMAS"


def open_task(options: DetectionOptions, layered: LayeredConfig) -> Task:
    """Opens and checks the data of the task that the configuration names, and says what they are.

    MODEL.META_ARCHITECTURE names semantic and panoptic segmentation, MODEL.KEYPOINT_ON keypoints; all else is
    instances.

    Raises:
        UserError: nothing names the data, they cannot be opened, or nothing could be learnt or scored.
    """
    root = Path(options.root) if options.root else None
    architecture = _stated(layered, META_ARCHITECTURE)
    if architecture in SEMANTIC:
        task = _open_semantic(options, layered, root)
    elif architecture == PANOPTIC:
        task = _open_panoptic(options, layered, root)
    elif _stated(layered, KEYPOINT_ON):
        task = _open_keypoints(options, layered, root)
    else:
        task = _open_instances(options, layered, root)
    if isinstance(task, ObjectsTask):
        task.require_objects()
    say(str(task))
    return task


def _open_semantic(options: DetectionOptions, layered: LayeredConfig, root: Path | None) -> Task:
    _refuse_metric(options, "mIoU")
    return SemanticTask(open_semantic_data(layered, options.train, options.test, root))


def _open_panoptic(options: DetectionOptions, layered: LayeredConfig, root: Path | None) -> Task:
    _refuse_metric(options, "panoptic quality")
    return PanopticTask(open_configured_data(layered, options.train, options.test, root, open_panoptic))


def _open_keypoints(options: DetectionOptions, layered: LayeredConfig, root: Path | None) -> Task:
    _refuse_metric(options, "COCO's AP of keypoints")
    data = open_configured_data(layered, options.train, options.test, root, open_keypoints)
    assert data.skeleton is not None, "open_keypoints reads it"
    return KeypointsTask(data, stated_sigmas(_stated(layered, OKS_SIGMAS), data.skeleton))


def _open_instances(options: DetectionOptions, layered: LayeredConfig, root: Path | None) -> Task:
    data = open_configured_data(layered, options.train, options.test, root)
    kind = data.test_split.kind
    if kind == "cityscapes":
        _refuse_metric(options, "that of Cityscapes")
        return CityscapesTask(data)
    if kind == "lvis":
        _refuse_metric(options, "that of LVIS")
        return LvisTask(data)
    return InstancesTask(data, options.metric or kind)


def _refuse_metric(options: DetectionOptions, score: str) -> None:
    """Raises UserError where --metric is given for a task with one score only."""
    if options.metric is not None:
        raise UserError(f"--metric {options.metric} is of objects; leave it out, the score is {score}")


def _stated(layered: LayeredConfig, key: str) -> Any:
    """The value of a key, None where nothing states it."""
    return layered[key].value if key in layered else None
