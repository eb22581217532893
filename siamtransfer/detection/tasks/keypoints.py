"""Keypoints of objects, scored by COCO's average precision of object keypoint similarity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from siamtransfer.detection.data.dataset_split import ImageRecord, Skeleton
from siamtransfer.detection.metrics.keypoint_ap import oks_sigmas
from siamtransfer.detection.tasks.objects import ObjectsTask
from siamtransfer.detection.tasks.task import Collector
from siamtransfer.detection.trials import MAIN
from siamtransfer.distributed.signals import StopSignal
from siamtransfer.utils.errors import UserError


@dataclass(frozen=True, eq=False)
class KeypointsTask(ObjectsTask):
    """Boxes and keypoints of the objects of `data`.

    sigmas: of the object keypoint similarity, one for each keypoint. An average precision has no value for a
    single image, so its intervals are over trials.
    """

    name: ClassVar[str] = "keypoints"
    evaluation: ClassVar[str] = "keypoint-detection"
    headline: ClassVar[str] = "keypoints/AP"
    mains: ClassVar[tuple[str, ...]] = ("keypoints/AP", "keypoints/AP50", "keypoints/AP75", *MAIN)

    scored: ClassVar[str] = "labelled keypoints of objects that are no crowds"

    sigmas: tuple[float, ...]

    def is_scored(self, annotation: dict[str, Any]) -> bool:
        return super().is_scored(annotation) and annotation["num_keypoints"] > 0

    @property
    def metric(self) -> str:  # type: ignore[override]
        """COCO's evaluation and the sigmas, which move the number."""
        sigmas = ", ".join(f"{sigma:g}" for sigma in self.sigmas)
        return f"coco: boxes by IoU, keypoints by OKS with the sigmas {sigmas}"

    @property
    def skeleton(self) -> Skeleton:
        """The keypoints of every object."""
        assert self.data.skeleton is not None
        return self.data.skeleton

    def fit_settings(self, cfg: Any) -> None:
        if cfg.MODEL.META_ARCHITECTURE != "GeneralizedRCNN":
            raise UserError(
                f"MODEL.KEYPOINT_ON is set, and {cfg.MODEL.META_ARCHITECTURE} has no keypoint head; take "
                "GeneralizedRCNN with an FPN"
            )
        super().fit_settings(cfg)
        cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS = len(self.skeleton.names)
        cfg.TEST.KEYPOINT_OKS_SIGMAS = list(self.sigmas)

    def train_records(self, cfg: Any) -> list[ImageRecord]:
        from detectron2.data import get_detection_dataset_dicts

        least = cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE
        return get_detection_dataset_dicts(
            cfg.DATASETS.TRAIN,
            filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
            min_keypoints=least,
        )

    def collector(self, stop: StopSignal | None) -> Collector:
        from siamtransfer.detection.detectron2.keypoint_collector import KeypointCollector

        return KeypointCollector(self.data, self.sigmas, stop)


def stated_sigmas(value: Any, skeleton: Skeleton) -> tuple[float, ...]:
    """The sigmas by TEST.KEYPOINT_OKS_SIGMAS (`value`, None where it is not stated).

    Raises:
        UserError: they are no numbers, or do not fit the keypoints.
    """
    numbers = list(value) if isinstance(value, list | tuple) else []
    if not all(isinstance(number, int | float) for number in numbers) or (value and not numbers):
        raise UserError(f"TEST.KEYPOINT_OKS_SIGMAS is {value!r}; give a list of numbers")
    return tuple(oks_sigmas(skeleton, numbers))
