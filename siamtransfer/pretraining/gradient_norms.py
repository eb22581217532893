"""How large the gradients are, layer by layer, and when they spike.

Vision transformers train unstably where the gradient of their first layer spikes: it does so before that of
the last layers (Chen, Xie and He, arXiv 2104.02057, section 4). Norms are Euclidean, over all weights and
biases of a place, of the gradient averaged over ranks, before the method clips or changes it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from siamtransfer.backbones.backbone import Backbone
from siamtransfer.backbones.blocks import blocks_of
from siamtransfer.distributed.sharding import norms
from siamtransfer.methods import Method
from siamtransfer.pretraining.monitor import GradientObserver
from siamtransfer.pretraining.step_result import StepResult
from siamtransfer.utils.errors import UserError

PREFIX = "gradient_norm/"


@dataclass
class SpikeWatch:
    """Finds spikes in rows of gradient norms.

    A measurement is a spike of a place when it is more than `factor` times the median of the `window`
    measurements of this place before it, and there have been at least `fewest`. Spikes in a row are one,
    which began with the first.

    Attributes:
        recent: the last measurements of each place.
        high: the places whose last measurement was a spike; a row that lacks a place leaves it as it was.
        began: the steps at which the spikes of each place began.
    """

    factor: float = 4.0
    window: int = 50
    fewest: int = 20
    recent: dict[str, list[float]] = field(default_factory=dict)
    high: list[str] = field(default_factory=list)
    began: dict[str, list[int]] = field(default_factory=dict)

    def check(self, step: int, found: dict[str, float]) -> list[str]:
        """Takes a row of norms by place; returns the places where a spike begins at `step`."""
        spiking = [place for place, norm in found.items() if self._is_spike(place, norm)]
        beginning = [place for place in spiking if place not in self.high]
        for place, norm in found.items():
            self.began.setdefault(place, [])
            self.recent[place] = [*self.recent.get(place, []), norm][-self.window :]
        for place in beginning:
            self.began[place].append(step)
        self.high = [*spiking, *(place for place in self.high if place not in found)]
        return beginning

    def _is_spike(self, place: str, norm: float) -> bool:
        before = self.recent.get(place, [])
        return len(before) >= self.fewest and norm > self.factor * statistics.median(before)


def first_layer(backbone: Backbone) -> nn.Conv2d | None:
    """The convolution that takes the pixels: the patch embedding of a ViT, the first layer of a ResNet. None
    for a network that has none."""
    return next((module for module in backbone.modules() if isinstance(module, nn.Conv2d)), None)


def require_first_layer(backbone: Backbone) -> None:
    """Raises UserError for a network without a convolution at the pixels."""
    if first_layer(backbone) is None:
        raise UserError(
            f"monitor.gradient_norms_every: {backbone.name} has no convolution that could be its first "
            "layer; leave it out, or choose another backbone.name"
        )


def places_of(method: Method) -> dict[str, list[nn.Parameter]]:
    """The parameters of each place whose gradient is measured, by the place's name."""
    first, blocks = first_layer(method.backbone), blocks_of(method.backbone)
    places = {
        "first_layer": [] if first is None else list(first.parameters()),
        "last_block": list(blocks[-1].parameters()) if blocks else [],
        "all": list(method.parameters()),
    }
    return {name: parameters for name, parameters in places.items() if parameters}


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor | None:
    """The norm of the gradients of all `parameters` together; None where none has a gradient, as in a frozen
    layer."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return norms(gradients).square().sum().sqrt() if gradients else None


class GradientNormMonitor(GradientObserver):
    """Writes norms of gradients every so many steps (rows gradient_norm/…); the record gets the spikes."""

    def __init__(self, method: Method, watch: SpikeWatch, every: int):
        self.method, self.watch, self.every = method, watch, every
        self._found: dict[str, Tensor] = {}
        names = tuple(f"{PREFIX}{place}" for place in places_of(method))
        headline = (*names, *(f"{name}/spikes" for name in names))
        super().__init__(headline, {"gradient_spikes": self._account()})

    def due(self, result: StepResult) -> bool:
        return result.step % self.every == 0

    @torch.no_grad()
    def see_gradients(self, step: int) -> None:
        """Measures the gradients of the step that will be number `step`, on the device."""
        if step % self.every == 0:
            found = {place: gradient_norm(weights) for place, weights in places_of(self.method).items()}
            self._found = {place: norm for place, norm in found.items() if norm is not None}

    def check(self, result: StepResult) -> dict[str, float]:
        """The norms that are finite: where float16 overflows, the scaler leaves the step out."""
        found = {place: float(norm) for place, norm in self._found.items()}
        found = {place: norm for place, norm in found.items() if math.isfinite(norm)}
        self.watch.check(result.step, found)
        self.protocol = {"gradient_spikes": self._account()}
        counts = {f"{PREFIX}{place}/spikes": float(len(self.watch.began[place])) for place in found}
        return {f"{PREFIX}{place}": norm for place, norm in found.items()} | counts

    def _account(self) -> dict[str, Any]:
        """For the record: what counts as a spike, and the steps at which spikes began."""
        watch = self.watch
        return {
            "factor": watch.factor,
            "window": watch.window,
            "every": self.every,
            "began": dict(watch.began),
        }
