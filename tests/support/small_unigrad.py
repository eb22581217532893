"""UniGrad at small size, views for it, and unit vectors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from siamtransfer.methods.unigrad import UniGrad, UniGradConfig
from support.golden_methods import TinyBackbone, random_views


def small(**settings: Any) -> UniGrad:
    torch.manual_seed(0)
    return UniGrad(TinyBackbone(), UniGradConfig(**{"hidden": 10, "dim": 6, **settings})).double()


def views() -> list[Tensor]:
    return random_views(16, 16)


def units(seed: int, dim: int = 6) -> Tensor:
    z = torch.randn(8, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.normalize(z, dim=1)
