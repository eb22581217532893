"""Ridge regression of the depths of patches, in closed form; the strength is chosen on held-out images.

Legend: n patches, D features, h and w cells of a map.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from siamtransfer.distributed.runtime import exact_matmul
from siamtransfer.evaluation.depth.config import DepthConfig
from siamtransfer.evaluation.depth.patches import DepthPatches
from siamtransfer.evaluation.linear.principal_axes import stream_axes
from siamtransfer.evaluation.linear.rows import Rows, place
from siamtransfer.evaluation.segmentation.linear import split_by_image
from siamtransfer.metrics.depth import DepthRange


@dataclass
class RidgeProbe:
    """A linear map of features to a depth or its logarithm (DepthProbe): float64 weight[D] and bias."""

    weight: Tensor
    bias: Tensor
    logarithm: bool
    depths: DepthRange
    protocol: dict[str, Any] = field(default_factory=dict)
    name: str = "ridge"

    def depth(self, features: Tensor) -> Tensor:
        """float32[h, w] in metres of features float32[D, h, w]."""
        values = torch.einsum("d,dhw->hw", self.weight, features.double()) + self.bias
        return self.metres(values).float()

    def metres(self, values: Tensor) -> Tensor:
        """Depths inside the range from values of the target."""
        metres = values.exp() if self.logarithm else values
        return metres.clamp(self.depths.low, self.depths.high)


class RidgeProblem:
    """The closed form for many strengths of one set of rows: the weights minimise the mean of (y - w z - b)^2
    plus strength times |w|^2, where z are the features with mean 0 and deviation 1. Float64 throughout."""

    def __init__(self, rows: Rows, targets: Tensor):
        self._axes = stream_axes(rows, standardise=True)
        self._mean = targets.mean()
        total = torch.zeros(rows.dim, dtype=torch.float64, device=rows.device)
        for part in rows.parts(1):
            total += (rows.part(part) - self._axes.mean).T @ (targets[part] - self._mean)
        self._projected = self._axes.axes.T @ (total / len(rows) / self._axes.scale)

    def solve(self, strength: float) -> tuple[Tensor, Tensor]:
        """(weight[D], bias) for features as they are."""
        axes = self._axes
        weight = axes.axes @ (self._projected / (axes.variances + strength)) / axes.scale
        return weight, self._mean - axes.mean @ weight


def fit_ridge(
    train: DepthPatches, depths: DepthRange, config: DepthConfig, device: torch.device
) -> RidgeProbe:
    """The strength with the lowest RMSE in metres of the patches of held-out images is fitted again to all
    of train; of equal ones the strongest is taken.

    Raises:
        UserError: train has too few images to hold one out, or a feature is not finite.
    """
    rows, targets = place(train.features, device), train.targets.to(device)
    strengths, log = sorted(config.strengths), config.target == "log"
    held_out: dict[float, float] = {}
    with exact_matmul():
        if len(strengths) > 1:
            fitted, held = (
                part.to(device) for part in split_by_image(train.images, config.held_out, config.seed)
            )
            problem = RidgeProblem(rows.select(fitted), targets[fitted])
            for strength in strengths:
                probe = RidgeProbe(*problem.solve(strength), log, depths)
                held_out[strength] = _patch_rmse(probe, rows.select(held), targets[held])
        best = min(held_out, key=lambda s: (held_out[s], -s)) if held_out else strengths[0]
        weight, bias = RidgeProblem(rows, targets).solve(best)
    protocol = {
        "regression": "ridge of patches on standardised features, closed form",
        "target": "mean logarithm of the depth of a patch" if log else "mean depth of a patch",
        "strengths": strengths,
        "chosen_strength": best,
        **({"held_out_patch_rmse": {f"{s:g}": round(v, 4) for s, v in held_out.items()}} if held_out else {}),
        **({"strength_chosen_on": f"{config.held_out:g} of the train images"} if held_out else {}),
        **({"chosen_at_edge": True} if held_out and best in (strengths[0], strengths[-1]) else {}),
    }
    return RidgeProbe(weight, bias, log, depths, protocol)


def _patch_rmse(probe: RidgeProbe, rows: Rows, targets: Tensor) -> float:
    """The RMSE in metres over patches."""
    squares = torch.zeros((), dtype=torch.float64, device=rows.device)
    truth = probe.metres(targets)
    for part in rows.parts(1):
        predicted = probe.metres(rows.part(part).double() @ probe.weight + probe.bias)
        squares += (predicted - truth[part]).square().sum()
    return float((squares / len(targets)).sqrt())
