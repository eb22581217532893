"""Boxes and masks of objects by torchvision's Faster and Mask R-CNN."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import cached_property
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from torchvision.models.detection import FasterRCNN

from siamtransfer.backbones.names import RESNETS
from siamtransfer.checkpoints.read_backbone import ReadBackbone
from siamtransfer.detection.metrics.coco_ap import Backend
from siamtransfer.detection.metrics.instance_outputs import InstanceOutputs
from siamtransfer.detection.metrics.score_predictions import score_predictions
from siamtransfer.detection.tasks.instances import InstancesTask
from siamtransfer.detection.torchvision.model import build_detector, predict
from siamtransfer.detection.torchvision.pyramid import check_pyramid
from siamtransfer.detection.torchvision.recipe import DetectorRecipe
from siamtransfer.detection.torchvision.training_images import Sample, TrainingImages, usable
from siamtransfer.detection.torchvision.transfer import Evaluation, Transfer
from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.utils.errors import UserError

NOT_COMPARABLE = (
    "torchvision's heads, samplers and losses are not Detectron2's, which published numbers are of"
)


class InstancesTransfer(Transfer[Sample]):
    """A detector from the backbone `read`; `backend` is the implementation that computes COCO's AP."""

    state_name: ClassVar[str] = "detector.pth"
    not_comparable: ClassVar[str] = NOT_COMPARABLE
    task: InstancesTask
    recipe: DetectorRecipe

    def __init__(
        self, read: ReadBackbone, task: InstancesTask, recipe: DetectorRecipe, backend: Backend = "hotcoco"
    ):
        super().__init__(read, task, recipe)
        self.backend = backend

    @cached_property
    def images(self) -> TrainingImages:
        """The training images that have an object to learn from, or all where the recipe says so."""
        records = self.task.data.train
        if self.recipe.filter_empty:
            records = [record for record in records if usable(record)]
        return TrainingImages(records, self.recipe)

    @property
    def count(self) -> int:
        return len(self.images)

    def check(self, world_size: int) -> None:
        check_pyramid(self.read, self.recipe.design.trunk)
        self.recipe.check(
            self.count, world_size, "images with objects" if self.recipe.filter_empty else "images"
        )
        if self.recipe.design.masks and (without := self.task.data.without_masks()) is not None:
            raise UserError(
                f"a Mask R-CNN needs a mask of every object, and {without}; append MODEL.MASK_ON False"
            )

    def build(self) -> FasterRCNN:
        return build_detector(self.read, len(self.task.classes), self.recipe.design)

    def losses(self, network: nn.Module, batch: list[Sample], runtime: Runtime) -> dict[str, Tensor]:
        images = [image.to(runtime.device) for image, _ in batch]
        targets = [{name: value.to(runtime.device) for name, value in target.items()} for _, target in batch]
        losses: dict[str, Tensor] = network(images, targets)
        return losses

    def measure_norms(self, network: nn.Module, batches: Iterator[list[Sample]], runtime: Runtime) -> None:
        transform, backbone = network.get_submodule("transform"), network.get_submodule("backbone")
        inputs = (transform([image.to(runtime.device) for image, _ in batch])[0].tensors for batch in batches)
        update_bn(inputs, backbone)

    def score(self, network: nn.Module, runtime: Runtime) -> Evaluation:
        assert isinstance(network, FasterRCNN)
        data, metrics = self.task.data, {}
        predictions = predict(network, data.test, runtime, self.recipe.design.short_side)
        with collectives.own_pace("scoring the detections"):
            if runtime.is_main:
                metrics = score_predictions(
                    predictions, data.test, self.task.metric, data.classes, self.backend
                )
        return Evaluation(collectives.broadcast_object(metrics), InstanceOutputs(data, predictions))

    def describe(self) -> dict[str, Any]:
        records = self.task.data.train
        with_objects = sum(map(usable, records))
        described = {
            "metric": self.task.metric,
            "train_images_with_objects": with_objects,
            "train_images_without_objects": {
                "count": len(records) - with_objects,
                "use": "left out" if self.recipe.filter_empty else "negatives",
            },
        }
        return described | ({"trunk": asdict(self.recipe.design.trunk)} if self._runs_timm else {})

    def identity(self) -> dict[str, str]:
        return super().identity() | ({"trunk": repr(self.recipe.design.trunk)} if self._runs_timm else {})

    @property
    def _runs_timm(self) -> bool:
        return self.read.architecture.name not in RESNETS
