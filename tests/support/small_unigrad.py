"""UniGrad at small size, views for it, and unit vectors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from siamtransfer.methods.unigrad import UniGrad, UniGradConfig
from support.golden_methods import TinyBackbone, random_views
from support.small_methods import unit_rows


def small(**settings: Any) -> UniGrad:
    torch.manual_seed(0)
    return UniGrad(TinyBackbone(), UniGradConfig(**{"hidden": 10, "dim": 6, **settings})).double()


def views() -> list[Tensor]:
    return random_views(16, 16)


def units(seed: int, dim: int = 6) -> Tensor:
    return unit_rows(8, dim, seed)
