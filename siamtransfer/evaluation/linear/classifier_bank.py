"""Many linear classifiers on the same features, trained at once: what costs is the features, not the heads.

All heads that read one selection of layers are one weight[H, K, D]; their scores are one matrix product and
so are their gradients, which are those of the mean cross-entropy of each head alone. Heads differ in rate and
in update rule, and never learn of each other.

Legend: H heads, N samples, D features, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

Rule = Literal["sgd", "lars", "adamw"]
MOMENTUM = 0.9
TRUST = 0.001  # LARS's coefficient, in every published probe
BETAS, EPSILON = (0.9, 0.999), 1e-8  # AdamW's


@dataclass(frozen=True)
class HeadSetting:
    """One head's choices: the update rule and its initial rate (already scaled to the batch)."""

    rule: Rule
    rate: float

    @property
    def name(self) -> str:
        return f"{self.rule}/rate={self.rate:.4g}"


class Heads:
    """scores = h @ weight.T + bias for every head, from weights N(0, 0.01²) that all heads share and bias 0.

    Updates are those of torch.optim.SGD and AdamW and of LARS with its trust ratio on weights and biases
    alike (timm's Lars(always_adapt=True); apex's LARC(clip=False) where there is no weight decay).
    """

    def __init__(
        self,
        settings: Sequence[HeadSetting],
        dim: int,
        classes: int,
        *,
        weight_decay: float = 0.0,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ):
        generator = torch.Generator().manual_seed(seed)
        first = 0.01 * torch.randn(classes, dim, generator=generator)
        self.settings, self.weight_decay, self.steps = list(settings), weight_decay, 0
        self.weight = first.expand(len(settings), -1, -1).clone().to(device)
        self.bias = torch.zeros(len(settings), classes, device=device)
        self.rates = torch.tensor([setting.rate for setting in settings], device=device)
        self._of_rule = {
            rule: torch.tensor([s.rule == rule for s in settings], device=device).nonzero()[:, 0]
            for rule in ("sgd", "lars", "adamw")
        }
        self._moments = {name: torch.zeros_like(x) for name, x in self._memory()}

    def scores(self, h: Tensor) -> Tensor:
        """float32[N, K, H] for features[N, D]. Heads stand last: a softmax over classes then works on all of
        them at once, ten times as fast as with the classes last."""
        heads, classes, dim = self.weight.shape
        weight, bias = self.weight.transpose(0, 1).reshape(-1, dim), self.bias.T.reshape(-1)
        return torch.addmm(bias, h.float(), weight.T).view(len(h), classes, heads)

    def gradients(self, h: Tensor, labels: Tensor, total: int) -> tuple[Tensor, Tensor, Tensor]:
        """Of these N of a batch of `total` samples: their part of each head's mean loss [H], and of its
        gradients, weight[H, K, D] and bias[H, K]."""
        heads, classes, dim = self.weight.shape
        logs = self.scores(h).log_softmax(dim=1)
        rows = torch.arange(len(labels), device=labels.device)
        losses = -logs[rows, labels].sum(dim=0) / total
        residual = logs.exp_()
        residual[rows, labels] -= 1
        residual /= total
        weight = (residual.flatten(1).T @ h.float()).view(classes, heads, dim).transpose(0, 1)
        return losses, weight.contiguous(), residual.sum(dim=0).T.contiguous()

    def update(self, weight: Tensor, bias: Tensor, decay: float) -> None:
        """One step of every head by its gradients, at `decay` times its rate."""
        self.steps += 1
        for x, gradient, name in ((self.weight, weight, "weight"), (self.bias, bias, "bias")):
            for rule, members in self._of_rule.items():
                if len(members):
                    self._update(x, gradient, name, rule, members, decay)

    def accuracy(self, h: Tensor, labels: Tensor, top: int = 1) -> Tensor:
        """Percentage of samples whose label is among the `top` best scores, float64[H]."""
        right = torch.zeros(len(self.settings), dtype=torch.float64, device=self.weight.device)
        for part, own in zip(h.split(8192), labels.split(8192), strict=True):
            scores = self.scores(part.to(self.weight.device))
            best = scores.topk(min(top, scores.shape[1]), dim=1).indices
            right += (best == own.to(best.device)[:, None, None]).any(dim=1).sum(dim=0)
        return 100 * right / len(labels)

    def scores_of(self, h: Tensor, head: int) -> Tensor:
        """float32[N, K] on the CPU: the scores of one head."""
        weight, bias = self.weight[head].cpu(), self.bias[head].cpu()
        return torch.cat([torch.addmm(bias, part.cpu().float(), weight.T) for part in h.split(8192)])

    def state_dict(self) -> dict[str, Any]:
        return {"weight": self.weight, "bias": self.bias, "steps": self.steps, "moments": self._moments}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.weight.copy_(state["weight"])
        self.bias.copy_(state["bias"])
        self.steps = state["steps"]
        for name, moment in self._moments.items():
            moment.copy_(state["moments"][name])

    def _memory(self) -> list[tuple[str, Tensor]]:
        """Moments by `rule/parameter/number`, each over the heads of that rule."""
        found = []
        for rule, members in self._of_rule.items():
            for name, x in (("weight", self.weight), ("bias", self.bias)):
                if len(members):
                    kept = range(2 if rule == "adamw" else 1)
                    found += [(f"{rule}/{name}/{number}", x[members]) for number in kept]
        return found

    def _update(
        self, x: Tensor, gradient: Tensor, name: str, rule: str, members: Tensor, decay: float
    ) -> None:
        whole = len(members) == len(x)
        w, g = (x, gradient) if whole else (x[members], gradient[members])
        shape = (-1,) + (1,) * (x.ndim - 1)
        rates = (self.rates[members] * decay).view(shape)
        first = self._moments[f"{rule}/{name}/0"]
        if rule == "adamw":
            second = self._moments[f"{rule}/{name}/1"]
            first.lerp_(g, 1 - BETAS[0])
            second.lerp_(g.square(), 1 - BETAS[1])
            scale = math.sqrt(1 - BETAS[1] ** self.steps)
            w = w * (1 - rates * self.weight_decay)
            w = w - rates / (1 - BETAS[0] ** self.steps) * first / (second.sqrt() / scale + EPSILON)
        else:
            if rule == "lars":
                ratio = _trust_ratio(w, g, self.weight_decay).view(shape)
                g = (g + self.weight_decay * w) * ratio
            elif self.weight_decay:
                g = g + self.weight_decay * w
            first.mul_(MOMENTUM).add_(g)
            w = w - rates * first
        if whole:
            x.copy_(w)
        else:
            x[members] = w


def _trust_ratio(w: Tensor, g: Tensor, weight_decay: float) -> Tensor:
    """TRUST ‖w‖ / (‖g‖ + weight_decay ‖w‖) of every head, [H]; 1 where a norm is zero."""
    w_norm, g_norm = w.flatten(1).norm(dim=1), g.flatten(1).norm(dim=1)
    ratio = TRUST * w_norm / (g_norm + weight_decay * w_norm)
    return torch.where((w_norm > 0) & (g_norm > 0), ratio, torch.ones_like(ratio))
