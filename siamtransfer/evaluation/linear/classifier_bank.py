"""Many linear classifiers on the same features, trained at once: the features cost time, the classifiers
little.

All classifiers that read one selection of layers are one weight[H, K, D]. Their scores are one matrix
product, and so are their gradients, which are those of the mean cross-entropy of each classifier alone.
Classifiers differ in learning rate and optimizer, and do not influence each other.

Legend: H classifiers, N samples, D features, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from siamtransfer.evaluation.linear.config import ProbeOptimizer

MOMENTUM = 0.9
TRUST = 0.001  # LARS's coefficient, in every published probe
BETAS, EPSILON = (0.9, 0.999), 1e-8  # AdamW's
ROWS_PER_CHUNK = 8192  # samples whose scores are held at once, at most
SCORES_PER_CHUNK = 2**26  # of all classifiers: 256 MiB


@dataclass(frozen=True)
class ClassifierSetting:
    """The choices of one classifier: the optimizer and the initial learning rate (already scaled to the
    batch)."""

    optimizer: ProbeOptimizer
    lr: float


class ClassifierBank:
    """scores = h @ weight.T + bias for every classifier, from weights N(0, 0.01²) that all share and bias 0.

    Updates are those of torch.optim.SGD and AdamW and of LARS with its trust ratio on weights and biases
    alike (timm's Lars(always_adapt=True); apex's LARC(clip=False) where there is no weight decay).
    """

    def __init__(
        self,
        settings: Sequence[ClassifierSetting],
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
        self.lrs = torch.tensor([setting.lr for setting in settings], device=device)
        self._members = {
            optimizer: torch.tensor([s.optimizer == optimizer for s in settings], device=device).nonzero()[
                :, 0
            ]
            for optimizer in ("sgd", "lars", "adamw")
        }
        self._moments = {name: torch.zeros_like(x) for name, x in self._moment_shapes()}

    def scores(self, h: Tensor) -> Tensor:
        """float32[N, K, H] for features[N, D]. Classifiers stand last: a softmax over classes then works on
        all of them at once, ten times as fast as with the classes last."""
        count, classes, dim = self.weight.shape
        weight, bias = self.weight.transpose(0, 1).reshape(-1, dim), self.bias.T.reshape(-1)
        return torch.addmm(bias, h.float(), weight.T).view(len(h), classes, count)

    def gradients(self, h: Tensor, labels: Tensor, total: int) -> tuple[Tensor, Tensor, Tensor]:
        """What N of a batch of `total` samples contribute to each classifier's mean loss [H], and to its
        gradients, weight[H, K, D] and bias[H, K]."""
        count, classes, dim = self.weight.shape
        log_probabilities = self.scores(h).log_softmax(dim=1)
        rows = torch.arange(len(labels), device=labels.device)
        losses = -log_probabilities[rows, labels].sum(dim=0) / total
        residual = log_probabilities.exp_()
        residual[rows, labels] -= 1
        residual /= total
        weight = (residual.flatten(1).T @ h.float()).view(classes, count, dim).transpose(0, 1)
        return losses, weight.contiguous(), residual.sum(dim=0).T.contiguous()

    def update(self, weight: Tensor, bias: Tensor, decay: float) -> None:
        """One step of every classifier by its gradients, at `decay` times its learning rate."""
        self.steps += 1
        for x, gradient, name in ((self.weight, weight, "weight"), (self.bias, bias, "bias")):
            for optimizer, members in self._members.items():
                if len(members):
                    self._update(x, gradient, name, optimizer, decay)

    def accuracy(self, h: Tensor, labels: Tensor, top: int = 1) -> Tensor:
        """Percentage of samples whose label is among the `top` best scores, float64[H]."""
        correct = torch.zeros(len(self.settings), dtype=torch.float64, device=self.weight.device)
        rows = max(1, min(ROWS_PER_CHUNK, SCORES_PER_CHUNK // (len(self.settings) * self.weight.shape[1])))
        for chunk, y in zip(h.split(rows), labels.split(rows), strict=True):
            scores = self.scores(chunk.to(self.weight.device))
            best = scores.topk(min(top, scores.shape[1]), dim=1).indices
            correct += (best == y.to(best.device)[:, None, None]).any(dim=1).sum(dim=0)
        return 100 * correct / len(labels)

    def scores_of(self, h: Tensor, number: int) -> Tensor:
        """float32[N, K] on the CPU: the scores of one classifier."""
        weight, bias = self.weight[number].cpu(), self.bias[number].cpu()
        chunks = h.split(ROWS_PER_CHUNK)
        return torch.cat([torch.addmm(bias, chunk.cpu().float(), weight.T) for chunk in chunks])

    def state_dict(self) -> dict[str, Any]:
        """All that an interrupted training needs."""
        return {"weight": self.weight, "bias": self.bias, "steps": self.steps, "moments": self._moments}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.weight.copy_(state["weight"])
        self.bias.copy_(state["bias"])
        self.steps = state["steps"]
        for name, moment in self._moments.items():
            moment.copy_(state["moments"][name])

    def _moment_shapes(self) -> list[tuple[str, Tensor]]:
        """A tensor of the shape of each moment, by `optimizer/parameter/number`."""
        shapes = []
        for optimizer, members in self._members.items():
            for name, x in (("weight", self.weight), ("bias", self.bias)):
                if len(members):
                    numbers = range(2 if optimizer == "adamw" else 1)
                    shapes += [(f"{optimizer}/{name}/{number}", x[members]) for number in numbers]
        return shapes

    def _update(self, x: Tensor, gradient: Tensor, name: str, optimizer: str, decay: float) -> None:
        members = self._members[optimizer]
        all_members = len(members) == len(x)
        w, g = (x, gradient) if all_members else (x[members], gradient[members])
        shape = (-1,) + (1,) * (x.ndim - 1)
        lrs = (self.lrs[members] * decay).view(shape)
        first = self._moments[f"{optimizer}/{name}/0"]
        if optimizer == "adamw":
            second = self._moments[f"{optimizer}/{name}/1"]
            first.lerp_(g, 1 - BETAS[0])
            second.lerp_(g.square(), 1 - BETAS[1])
            scale = math.sqrt(1 - BETAS[1] ** self.steps)
            w = w * (1 - lrs * self.weight_decay)
            w = w - lrs / (1 - BETAS[0] ** self.steps) * first / (second.sqrt() / scale + EPSILON)
        else:
            if optimizer == "lars":
                ratio = _trust_ratio(w, g, self.weight_decay).view(shape)
                g = (g + self.weight_decay * w) * ratio
            elif self.weight_decay:
                g = g + self.weight_decay * w
            first.mul_(MOMENTUM).add_(g)
            w = w - lrs * first
        if all_members:
            x.copy_(w)
        else:
            x[members] = w


def _trust_ratio(w: Tensor, g: Tensor, weight_decay: float) -> Tensor:
    """TRUST ‖w‖ / (‖g‖ + weight_decay ‖w‖) of every classifier, [H]; 1 where a norm is zero."""
    w_norm, g_norm = w.flatten(1).norm(dim=1), g.flatten(1).norm(dim=1)
    ratio = TRUST * w_norm / (g_norm + weight_decay * w_norm)
    return torch.where((w_norm > 0) & (g_norm > 0), ratio, torch.ones_like(ratio))
