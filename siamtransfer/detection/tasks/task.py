"""What a fine-tuning task is: checked data, how Detectron2 reads them, and how a trained model is scored.

Study, engines, trials, search and record know only this. A task of another kind is a class below `Task` and a
line in `registry.py`. Detectron2 is imported in the methods that need it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

from torch import Tensor

from siamtransfer.distributed.signals import StopSignal

PICTURE = "predictions.png"


class Outputs(Protocol):
    """What a scored model leaves beside its result, such as a picture of predictions."""

    def write(self, folder: Path) -> None:
        """Writes the files into the folder of the run; a file of the same name is replaced."""


class Collector(Protocol):
    """One of Detectron2's evaluators (DatasetEvaluator) that keeps what it has scored."""

    def reset(self) -> None: ...

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None: ...

    def evaluate(self) -> dict[str, float]:
        """The metrics in per cent on the main process, {} on the others."""

    @property
    def outputs(self) -> Outputs:
        """After `evaluate`, on the main process."""


class TrainingOrder(Protocol):
    """Makes samplers of training images whose order is a function of the seed and the step."""

    def shuffled(self, images: int) -> Any:
        """Of so many images, each once in an epoch."""

    def repeated(self, factors: Tensor) -> Any:
        """Of images that come `factors` times in an epoch on average; factors: float32[images]."""


class Task(ABC):
    """The data of a study and the way in which models are scored on them.

    Attributes:
        name: for messages and settings, such as `semantic`.
        evaluation: the name of the evaluation in a record.
        headline: the metric by which the search chooses and that messages state.
        mains: the metrics in tables and in paired differences.
        metric: how the score is computed, for the record.
    """

    name: ClassVar[str]
    evaluation: ClassVar[str] = "detection"
    headline: ClassVar[str]
    mains: ClassVar[tuple[str, ...]]
    metric: str

    @property
    def measure(self) -> str:
        """The last word of the headline, such as AP."""
        return self.headline.rpartition("/")[2]

    @property
    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """The names of the classes by their number."""

    @property
    @abstractmethod
    def train_fingerprint(self) -> str:
        """Of everything to train on."""

    @property
    @abstractmethod
    def test_fingerprint(self) -> str:
        """Of everything to test on."""

    @property
    @abstractmethod
    def test_name(self) -> str:
        """What the test data are called in messages."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """The data for a record's protocol: names, counts, classes, remarks."""

    @abstractmethod
    def hold_out(self, fraction: float) -> Self:
        """The same task with `fraction` of the training images, always the same ones, as test images.

        Raises:
            UserError: too few images would be left on a side.
        """

    def identity(self) -> dict[str, Any]:
        """Every choice of the task that moves a number."""
        return {
            "task": self.name,
            "metric": self.metric,
            "train": self.train_fingerprint,
            "test": self.test_fingerprint,
        }

    def image_intervals(self, folders: Sequence[Path]) -> dict[str, float]:
        """What resampling the test images says of one trial, in its folder, or of the difference of two; {}
        where a task keeps nothing of single images.

        Keys: NAME/images_low and images_high, and of two folders those of first minus second below compare/.
        """
        return {}

    @abstractmethod
    def fit_settings(self, cfg: Any) -> None:
        """Sets in Detectron2's CfgNode what follows from the data, and registers them there if need be.

        Raises:
            UserError: the settings ask for what the data do not have.
        """

    @abstractmethod
    def train_loader(self, cfg: Any, order: TrainingOrder) -> Any:
        """Detectron2's loader of training batches, in the order of a sampler that `order` makes."""

    @abstractmethod
    def test_loader(self, cfg: Any) -> Any:
        """Detectron2's loader of the test images, each once."""

    @abstractmethod
    def collector(self, stop: StopSignal | None) -> Collector:
        """A new evaluator; `stop`, where given, may end the program between two batches."""
