"""What the training loop asks of a task: a network on the backbone, its batches, its losses, its scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Generic, TypeVar

from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from siamtransfer.checkpoints.read_backbone import ReadBackbone
from siamtransfer.detection.tasks.task import Outputs, Task
from siamtransfer.detection.torchvision.recipe import Recipe
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.utils.workers import worker_init
from siamtransfer.views.sampler import StepSampler

S = TypeVar("S")
"""A sample: an image and its target."""
_FREE = ("score_every", "save_every", "log_every")
_LATER = ("optimizer", "betas", "layer_decay", "no_decay", "filter_empty")
"""Fields of a recipe that states of older versions do not have; they are named where they are chosen."""


@dataclass(frozen=True)
class Evaluation:
    """Metrics in per cent and what the model leaves, both the same on every rank."""

    metrics: dict[str, float]
    outputs: Outputs


class Transfer(ABC, Generic[S]):
    """A backbone, a task and a recipe.

    Attributes:
        state_name: the file of the newest state.
        not_comparable: why its numbers are no published protocol's.
        synchronises_norms: whether several ranks share the statistics of batch norms.
    """

    state_name: ClassVar[str]
    not_comparable: ClassVar[str]
    synchronises_norms: bool = True

    def __init__(self, read: ReadBackbone, task: Task, recipe: Recipe):
        self.read, self.task, self.recipe = read, task, recipe

    @property
    @abstractmethod
    def images(self) -> Dataset[S]:
        """The training images by their `SampleKey`."""

    @property
    @abstractmethod
    def count(self) -> int:
        """The number of training images."""

    @abstractmethod
    def check(self, world_size: int) -> None:
        """Raises UserError for a backbone, data and a recipe that do not go together on so many ranks."""

    @abstractmethod
    def build(self) -> nn.Module:
        """The network, proved to hold the backbone; what is new is drawn from torch's generator."""

    @abstractmethod
    def losses(self, network: nn.Module, batch: list[S], runtime: Runtime) -> dict[str, Tensor]:
        """The parts of the loss of a batch by their names, `loss_…`; the network is as `Runtime.distribute`
        returned it."""

    @abstractmethod
    def measure_norms(self, network: nn.Module, batches: Iterator[list[S]], runtime: Runtime) -> None:
        """Replaces the running statistics of the batch norms by the mean over the batches."""

    @abstractmethod
    def score(self, network: nn.Module, runtime: Runtime) -> Evaluation:
        """The scores on the test images; each rank takes a part of them."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What the protocol of a record says beyond the recipe."""

    def batches(self, start: int, steps: int, runtime: Runtime, workers: int) -> Iterator[list[S]]:
        """This rank's part of the batches from step `start` up to `steps`."""
        sampler = StepSampler(
            self.count,
            self.recipe.batch,
            steps,
            seed=self.recipe.seed,
            start=start,
            rank=runtime.rank,
            world_size=runtime.world_size,
        )
        init = worker_init() if workers else None
        return iter(
            DataLoader(
                self.images, batch_sampler=sampler, collate_fn=list, num_workers=workers, worker_init_fn=init
            )
        )

    def identity(self) -> dict[str, str]:
        """What must be equal for a training to go on; how often it saves and scores may change."""
        recipe = self.recipe
        settings = {
            recipe.record_name(field.name): str(getattr(recipe, field.name))
            for field in fields(recipe)
            if field.name not in _FREE
            and not (field.name in _LATER and getattr(recipe, field.name) == field.default)
        }
        return {
            "weights": self.read.digest,
            "network": repr(self.read.architecture),
            "transform": repr(self.read.normalisation),
            "train": self.task.train_fingerprint,
            "classes": ", ".join(self.task.classes),
            **settings,
        }
