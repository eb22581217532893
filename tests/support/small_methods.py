"""Every method at small size, and views for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from siamtransfer.methods import METHODS, Method
from support.golden_methods import TinyBackbone

SMALL: dict[str, dict[str, Any]] = {
    "simsiam": {"dim": 12},
    "simclr": {"dim": 8},
    "moco": {"dim": 8, "queue": 40, "momentum": 0.5},
    "moco-v3": {"dim": 8, "hidden": 12, "momentum": 0.5},
    "byol": {"dim": 8, "hidden": 12, "momentum": 0.5},
    "swav": {"dim": 8, "hidden": 12, "prototypes": 10, "queue": 16, "queue_from_epoch": 0},
    "dino": {"dim": 10, "hidden": 12, "bottleneck": 8, "momentum": 0.5, "freeze_last_layer_epochs": 0},
    "barlow-twins": {"dim": 12, "hidden": 12},
    "vicreg": {"dim": 12, "hidden": 12},
    "directpred": {"dim": 8, "hidden": 12, "momentum": 0.5},
    "unigrad": {"dim": 8, "hidden": 12, "momentum": 0.5},
    "simsiam-variants": {"dim": 12},
}
BATCH = 16


def small(name: str, **changes: Any) -> Method:
    """A method at small size in float64, the same every time."""
    torch.manual_seed(0)
    cls = METHODS[name]
    return cls(TinyBackbone(), cls.Config(**{**SMALL[name], **changes})).double()


def some_views(step: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(step)
    return list(torch.randn(2, BATCH, 3, 16, 16, generator=generator, dtype=torch.float64))


class Constant(nn.Module):
    """A head with fixed outputs, in turn where there are several."""

    def __init__(self, *outputs: Tensor):
        super().__init__()
        self.outputs, self.calls = outputs, 0

    def forward(self, h: Tensor) -> Tensor:
        self.calls += 1
        return self.outputs[(self.calls - 1) % len(self.outputs)] + 0 * h.sum()


def unit_rows(n: int, d: int, seed: int = 0) -> Tensor:
    rows = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return rows / rows.norm(dim=1, keepdim=True)
