"""The base class of methods: views in, a loss out, parameters in groups, and three hooks of a step."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, ClassVar, Literal, Self

from torch import Tensor, nn

from siamtransfer.backbones.backbone import Backbone

Part = Literal["backbone", "target", "second", "head"]
"""What a tensor of a method belongs to; a checkpoint's reader takes one backbone and drops the heads."""


@dataclass
class StepOutput:
    """The result of a method's forward pass over one batch.

    Attributes:
        loss: scalar, the mean over the batch.
        projections: z of every view, each [N, d], detached; the collapse monitors read them.
        numbers: further scalars to log, by name, detached; computed from the rows of this rank.
    """

    loss: Tensor
    projections: list[Tensor]
    numbers: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class ParameterGroup:
    """Parameters that share a learning-rate rule.

    Attributes:
        name: of the group, in messages.
        parameters: all with requires_grad.
        constant_lr: keep the initial learning rate instead of following the schedule (SimSiam's predictor).
        lr_scale: factor of the learning rate.
    """

    name: str
    parameters: list[nn.Parameter]
    constant_lr: bool = False
    lr_scale: float = 1.0


@dataclass(frozen=True)
class StepInfo:
    """The position in a run: `step` (from 0) of `steps`, with `steps_per_epoch` steps in an epoch."""

    step: int
    steps: int
    steps_per_epoch: int

    @property
    def epoch(self) -> int:
        """The epoch of this step, from 0."""
        return self.step // self.steps_per_epoch

    @property
    def done(self) -> float:
        """The fraction of all steps that precede this one, from 0 to just below 1."""
        return self.step / self.steps


UNCENTRED = 0.11, 0.18
"""Bounds of the spread (`Options.least_std`, `least_rank_fraction`) of methods whose embeddings no norm over
the batch centres: they may share a direction, most of all at the start, and still tell images apart. From
runs of known outcome (docs/STABILITY.md)."""


@dataclass
class Options:
    """Base of every method's options: a dataclass that is a section of the configuration.

    The docstring below each field is its help text on the command line.

    Attributes:
        collapse_causes: the options that are likely causes when all images get the same projection.
        least_std, least_rank_fraction: bounds of the standard deviation and of the effective rank divided by
            d; projections below both count as collapsed (pretraining/collapse.py).
    """

    collapse_causes: ClassVar[tuple[str, ...]] = ()
    least_std: ClassVar[float] = 0.4
    least_rank_fraction: ClassVar[float] = 0.42

    @property
    def per_column(self) -> str | None:
        """The option, with its value, that gives each column of pairs networks of its own; None where views
        of all columns go through the same ones."""
        return None

    @property
    def trunks(self) -> int:
        """How many backbones the method trains: 2 where each column of pairs has its own."""
        return 1

    def check(self, batch: int) -> None:
        """Raises UserError for values that mean nothing, alone, together or with `batch` images a step."""

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> Self:
        """The inverse of `dataclasses.asdict`; keys that `saved` lacks have their defaults.

        Raises:
            TypeError: `saved` has an unknown key. Keys of older versions go through `current_names` first.
        """
        sections: dict[str, Any] = {
            option.name: option.default_factory
            for option in fields(cls)
            if is_dataclass(option.default_factory)
        }
        return cls(
            **{key: sections[key](**value) if key in sections else value for key, value in saved.items()}
        )


class Method(nn.Module):
    """Base of all methods: holds a `backbone`, x[N,3,H,W] -> h[N,D] with `backbone.dim` = D, and its options.

    A subclass sets `Config` and computes `forward(views: list of [N,3,S,S]) -> StepOutput`. It may override
    `prepare`, `groups` and the three hooks of a step. All state that lasts from one step to the next is a
    parameter or a buffer, so that a resumed run is equal to the bit; schedules are functions of StepInfo
    alone.

    Attributes:
        Config: the dataclass of the method's options.
        multi_crop: whether `forward` takes more than two views of an image.
        mixes: whether `forward` has targets for mixed views, which with `views.mix` follow the views of one
            image (see parts/mixing.py).
        uses_index: whether `forward` takes a second argument, int64[N]: the number in the image set of the
            image that each row shows. An image that replaces an unreadable one has the number of the
            unreadable one.
        recordable: whether `forward` on one rank is a function of tensors and of `graph_key` alone, and reads
            no number on the host, so that it can be recorded as a CUDA graph.
        evaluated: the network that the method's authors evaluate: `backbone`, or its moving average
            `target_backbone`. The kNN monitor scores it, and readers of a checkpoint take it by default.
    """

    Config: ClassVar[type[Options]]
    multi_crop: ClassVar[bool] = False
    mixes: ClassVar[bool] = False
    evaluated: ClassVar[Literal["backbone", "target_backbone"]] = "backbone"
    recordable: bool = False
    uses_index: bool = False

    def __init__(self, backbone: Backbone, config: Options):
        super().__init__()
        self.backbone = backbone
        self.config = config

    def forward(self, views: list[Tensor]) -> StepOutput:
        raise TypeError(f"{type(self).__name__} does not define forward(views)")

    @property
    def evaluated_backbone(self) -> nn.Module:
        """The module that `evaluated` names."""
        return self.get_submodule(self.evaluated)

    @property
    def graph_key(self) -> Hashable | None:
        """What `forward` depends on besides tensors, after `before_forward`; a recorded graph serves one
        value of it. None: this step cannot be recorded."""
        return ()

    def parts(self) -> dict[str, Part]:
        """What each first word of the names in `state_dict()` belongs to, in their order.

        `backbone` is the backbone, `target_backbone` its moving average and `second_backbone` that of the
        second column of pairs; every other child, parameter or buffer is a head. A method overrides this only
        if it keeps a backbone under another name.
        """
        networks: dict[str, Part] = {
            "backbone": "backbone",
            "target_backbone": "target",
            "second_backbone": "second",
        }
        first_words = dict.fromkeys(key.split(".", 1)[0] for key in self.state_dict())
        return {word: networks.get(word, "head") for word in first_words}

    def add_trunk(self, backbone: Backbone) -> None:
        """Receives the backbone of the second column, which may take other channels, where the options say
        that there are two trunks; once, after the method is made."""
        raise TypeError(f"{type(self).__name__} has one trunk")

    def prepare(self, images: int, labels: Tensor | None) -> None:
        """Receives the number of images and their labels int64[images], None for a set without labels.

        It is called once, before a saved state is loaded. Buffers with a row for each image are made here.
        """

    def groups(self) -> list[ParameterGroup]:
        """All trainable parameters; by default one group that follows the schedule."""
        return [ParameterGroup("all", trainable(self))]

    def before_forward(self, info: StepInfo) -> None:
        """Sets scheduled values, and moves momentum encoders that move before their forward pass."""

    def before_update(self, info: StepInfo) -> None:
        """Changes gradients between the backward pass and the optimiser's step (clipping, a frozen layer)."""

    def after_update(self, info: StepInfo) -> None:
        """Acts on the new weights: moves momentum encoders that move after the optimiser's step."""


def trainable(module: nn.Module) -> list[nn.Parameter]:
    """The parameters of `module` that take gradients, in order."""
    return [p for p in module.parameters() if p.requires_grad]
