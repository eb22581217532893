"""What every method is: views in, a loss out, and parameters in groups."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass
class StepOutput:
    """What a method computed from one batch.

    Attributes:
        loss: scalar, the mean over the batch.
        projections: z of every view, each [N, d], detached; the collapse monitors read them.
    """

    loss: Tensor
    projections: list[Tensor]


@dataclass
class ParameterGroup:
    """Parameters that share a learning-rate rule.

    Attributes:
        constant_rate: keep the initial rate instead of following the schedule (SimSiam's predictor).
        rate_scale: multiplies the rate.
    """

    name: str
    parameters: list[nn.Parameter]
    constant_rate: bool = False
    rate_scale: float = 1.0


class Method(nn.Module):
    """Base of all methods: holds a `backbone` x[N,3,H,W] -> h[N,D] with its `dim` D.

    Subclasses compute `forward(views: list of [N,3,S,S]) -> StepOutput` and may override `groups`.
    """

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone

    def forward(self, views: list[Tensor]) -> StepOutput:
        raise TypeError(f"{type(self).__name__} does not define forward(views)")

    def groups(self) -> list[ParameterGroup]:
        """All trainable parameters; one group that follows the schedule unless a method says otherwise."""
        return [ParameterGroup("all", trainable(self))]


def trainable(module: nn.Module) -> list[nn.Parameter]:
    """The parameters of `module` that take gradients, in order."""
    return [p for p in module.parameters() if p.requires_grad]
