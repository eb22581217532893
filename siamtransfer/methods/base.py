"""What every method is: views in, a loss out, parameters in groups, and three moments of a step to act at."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, ClassVar, Literal, Self

from torch import Tensor, nn


Part = Literal["backbone", "target", "head"]
"""What a tensor of a method belongs to; a checkpoint's reader takes one backbone and drops the heads."""


@dataclass
class StepOutput:
    """What a method computed from one batch.

    Attributes:
        loss: scalar, the mean over the batch.
        projections: z of every view, each [N, d], detached; the collapse monitors read them.
        numbers: more scalars to write down, by name, detached; of this rank's rows.
    """

    loss: Tensor
    projections: list[Tensor]
    numbers: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class ParameterGroup:
    """Parameters that share a learning-rate rule.

    Attributes:
        constant_rate: keep the initial rate instead of following the schedule (SimSiam's predictor).
        rate_scale: multiplies the rate.
    """

    name: str
    parameters: list[nn.Parameter]
    constant_lr: bool = False
    lr_scale: float = 1.0


@dataclass(frozen=True)
class StepInfo:
    """Where a run stands: `step` (from 0) of `steps`, `steps_per_epoch` of them an epoch."""

    step: int
    steps: int
    steps_per_epoch: int

    @property
    def epoch(self) -> int:
        """The epoch that the step lies in, from 0."""
        return self.step // self.steps_per_epoch

    @property
    def done(self) -> float:
        """The share of all steps done before this one, from 0 to just below 1."""
        return self.step / self.steps


@dataclass
class Options:
    """Base of every method's options, a dataclass that is a section of the configuration.

    Attributes:
        collapse_causes: which options are likely to blame when all images get one answer.
        least_std, least_rank_share: below which projections count as collapsed (diagnostics.py).
    """

    collapse_causes: ClassVar[tuple[str, ...]] = ()
    least_std: ClassVar[float] = 0.4
    least_rank_share: ClassVar[float] = 0.42

    def check(self, batch: int) -> None:
        """Raises UserError for options that mean nothing, alone, together or with `batch` images a step."""

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> Self:
        """The options that `dataclasses.asdict` made a dict of, an older version's too."""
        parts: dict[str, Any] = {
            each.name: each.default_factory for each in fields(cls) if is_dataclass(each.default_factory)
        }
        return cls(**{key: parts[key](**value) if key in parts else value for key, value in saved.items()})


class Method(nn.Module):
    """Base of all methods: holds a `backbone` x[N,3,H,W] -> h[N,D] with its `dim` D.

    Subclasses compute `forward(views: list of [N,3,S,S]) -> StepOutput` and may override `prepare`, `groups`
    and the three moments. All that a method remembers between steps is a parameter or a buffer, so that a
    resumed run goes on exactly; schedules are functions of the moment alone.

    Attributes:
        uses_index: `forward` takes a second argument, int64[N]: which image of the set each row shows; what
            stands in for one that cannot be read counts as the one asked for.
        evaluated: the network that the method's authors evaluate: `backbone`, or the moving average
            `target_backbone`. The kNN monitor scores it, and readers of a checkpoint take it by default.
    """

    uses_index = False
    evaluated: Literal["backbone", "target_backbone"] = "backbone"

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone

    def forward(self, views: list[Tensor]) -> StepOutput:
        raise TypeError(f"{type(self).__name__} does not define forward(views)")

    @property
    def evaluated_backbone(self) -> nn.Module:
        """The module that `evaluated` names."""
        return self.get_submodule(self.evaluated)

    def parts(self) -> dict[str, Part]:
        """What each first word of the names in `state_dict()` belongs to, in their order.

        `backbone` is the backbone, `target_backbone` its moving average; every other child, parameter or buffer
        is a head. A method overrides this only if it keeps a backbone under another name.
        """
        networks: dict[str, Part] = {"backbone": "backbone", "target_backbone": "target"}
        first_words = dict.fromkeys(key.split(".", 1)[0] for key in self.state_dict())
        return {word: networks.get(word, "head") for word in first_words}

    def prepare(self, images: int, labels: Tensor | None) -> None:
        """Meets the set, once and before a saved state is loaded: its number of images and their labels
        int64[images], None where it has none. What is remembered of every image gets its place here."""

    def groups(self) -> list[ParameterGroup]:
        """All trainable parameters; one group that follows the schedule unless a method says otherwise."""
        return [ParameterGroup("all", trainable(self))]

    def before_forward(self, info: StepInfo) -> None:
        """Sets what is scheduled, and moves the momentum encoders that move before the target's forward."""

    def before_update(self, info: StepInfo) -> None:
        """Changes gradients between backward and the optimiser's step (clipping, a frozen layer)."""

    def after_update(self, info: StepInfo) -> None:
        """Acts on the new weights: momentum encoders that move after the optimiser's step, and the like."""


def trainable(module: nn.Module) -> list[nn.Parameter]:
    """The parameters of `module` that take gradients, in order."""
    return [p for p in module.parameters() if p.requires_grad]
