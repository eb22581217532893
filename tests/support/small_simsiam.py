"""simsiam-variants at small size, its gradients, and a few training steps of it on one rank or several."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from siamtransfer.distributed.runtime import Runtime
from siamtransfer.methods import StepInfo
from siamtransfer.methods.simsiam_variants.model import SimSiamVariants
from siamtransfer.methods.simsiam_variants.options import SimSiamVariantsConfig
from siamtransfer.optim.config import OptimConfig
from siamtransfer.optim.optimizers import build_optimizer
from siamtransfer.training.guard import StepContext
from siamtransfer.training.step import Updater, train_step
from support.golden_methods import TinyBackbone, random_views

IMAGES = 24
LABELS = torch.arange(IMAGES) % 3
VIEWS = random_views(16, 16)


def small_variant(**options: Any) -> SimSiamVariants:
    """The method in float64 for 24 images of 3 classes, the same every time."""
    torch.manual_seed(0)
    method = SimSiamVariants(TinyBackbone(), SimSiamVariantsConfig(dim=12, **options))
    method.prepare(IMAGES, LABELS)
    return method.double()


def gradients(method: SimSiamVariants, views: list[Tensor] = VIEWS) -> dict[str, Tensor]:
    """The gradient of every parameter that has one, for one batch of the images 0, 1, ..."""
    method(views, torch.arange(len(views[0]))).loss.backward()
    return {name: p.grad for name, p in method.named_parameters() if p.grad is not None}


def random_rows(n: int, d: int, seed: int = 0) -> Tensor:
    """float64[n,d], the same for a seed."""
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def trained(method: SimSiamVariants, runtime: Runtime, steps: int, steps_per_epoch: int = 2) -> Any:
    """The mean loss, gradients and state after some training steps, on this rank's rows of batches of 8."""
    model = runtime.distribute(method)
    optimizer = build_optimizer(OptimConfig(lr=0.1, batch_size=256), method.groups())
    last: dict[str, Tensor] = {}
    method.before_update = lambda info: last.update(  # type: ignore[method-assign]
        {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}
    )
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        views = [torch.randn(8, 3, 16, 16, generator=generator, dtype=torch.float64) for _ in range(2)]
        index = torch.randperm(IMAGES, generator=generator)[:8]
        *views, index = [rows.chunk(runtime.world_size)[runtime.rank] for rows in (*views, index)]
        torch.manual_seed(100 * step + runtime.rank)
        info = StepInfo(step, steps, steps_per_epoch)
        updater = Updater(model, optimizer, runtime.scaler(), runtime)
        _, report = train_step(updater, views, StepContext(step, 0.1, index), info)
    return torch.tensor(report.loss), last, method.state_dict()
