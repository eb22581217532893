"""A class for every pixel by torchvision's FCN and DeepLab v3 heads."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from siamtransfer.checkpoints.read_backbone import ReadBackbone
from siamtransfer.detection.metrics.mask_counter import MaskCounter
from siamtransfer.detection.metrics.mask_outputs import semantic_metrics
from siamtransfer.detection.tasks.semantic import SemanticTask
from siamtransfer.detection.torchvision.segmenter import Segmenter, build_segmenter
from siamtransfer.detection.torchvision.segmenter_recipe import SegmenterRecipe
from siamtransfer.detection.torchvision.training_crops import Crop, TrainingCrops, as_planes
from siamtransfer.detection.torchvision.transfer import Evaluation, Transfer
from siamtransfer.detection.torchvision.trunk import dilated_architecture
from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.segmentation.data.masked_images import read_pair
from siamtransfer.segmentation.random_crop import resize_image, scaled_size

NOT_COMPARABLE = (
    "torchvision's head is not that of the configuration, which published numbers of Detectron2 are of"
)


class SemanticTransfer(Transfer[Crop]):
    """A segmenter from the backbone `read`."""

    state_name: ClassVar[str] = "segmenter.pth"
    not_comparable: ClassVar[str] = NOT_COMPARABLE
    task: SemanticTask
    recipe: SegmenterRecipe

    def __init__(self, read: ReadBackbone, task: SemanticTask, recipe: SegmenterRecipe):
        super().__init__(read, task, recipe)
        self.synchronises_norms = "own" not in (recipe.design.trunk_norm, recipe.design.head_norm)

    @cached_property
    def images(self) -> TrainingCrops:
        """The crops of all training images."""
        return TrainingCrops(self.task.data.train, self.recipe, self.read.normalisation)

    @property
    def count(self) -> int:
        return len(self.images)

    def check(self, world_size: int) -> None:
        design = self.recipe.design
        dilated_architecture(self.read, design.output_stride, contracted=design.contracted)
        self.recipe.check(self.count, world_size)

    def build(self) -> Segmenter:
        test = self.task.data.test
        return build_segmenter(self.read, len(test.classes), self.recipe.design, test.ignore)

    def losses(self, network: nn.Module, batch: list[Crop], runtime: Runtime) -> dict[str, Tensor]:
        images, targets = (torch.stack(part).to(runtime.device) for part in zip(*batch, strict=True))
        losses: dict[str, Tensor] = network(images, targets)
        return losses

    def measure_norms(self, network: nn.Module, batches: Iterator[list[Crop]], runtime: Runtime) -> None:
        update_bn(
            (torch.stack([image for image, _ in batch]).to(runtime.device) for batch in batches), network
        )

    def score(self, network: nn.Module, runtime: Runtime) -> Evaluation:
        assert isinstance(network, Segmenter)
        network.eval()
        test, counter = self.task.data.test, MaskCounter(self.task.data.test)
        with torch.no_grad():
            for number in range(runtime.rank, len(test), runtime.world_size):
                image, mask = read_pair(test, number)
                resized = resize_image(image, scaled_size(mask.shape, *self.recipe.design.test_sides))
                pixels = as_planes(resized)[None].to(runtime.device)
                height, width = mask.shape
                predicted = network.predict(pixels, (height, width))[0]
                counter.add(number, predicted.cpu().numpy(), mask)
        outputs = counter.joined(collectives.all_gather_object([counter.of_rank()]))
        return Evaluation(semantic_metrics(outputs.counts.scores(), test.classes), outputs)

    def describe(self) -> dict[str, Any]:
        return {"metric": self.task.metric, "head": self.recipe.design.head}
