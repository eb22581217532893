"""The last look before an update: is everything finite, on every rank, and does anyone want to stop?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.utils.errors import UserError


@dataclass(frozen=True)
class StepReport:
    """What all ranks agreed on: the mean loss, the ranks' finiteness and the exit status to stop with."""

    loss: float
    loss_finite: bool
    gradients_finite: bool
    exit_status: int | None


@dataclass(frozen=True)
class StepContext:
    """Where to look when a step goes wrong: the step, its learning rate and this rank's sample indices."""

    step: int
    rate: float
    indices: Tensor


def step_report(
    loss: Tensor, parameters: Iterable[nn.Parameter], exit_status: int | None, runtime: Runtime
) -> StepReport:
    """Brings loss (a scalar), gradients and stop wishes of all ranks together, in one exchange.

    Every rank gets the same verdict, so that all of them go on or all of them stop and none waits for ever.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norms = torch.stack(torch._foreach_norm(gradients)).sum() if gradients else loss.new_zeros(())
    local = torch.stack(
        [
            loss.detach().double(),
            (~loss.detach().isfinite()).double(),
            (~norms.isfinite()).double(),
            torch.full_like(loss, exit_status or 0, dtype=torch.float64),
        ]
    )
    every_rank = collectives.all_gather(local[None])
    total, bad_losses, bad_gradients, _ = every_rank.sum(dim=0).tolist()
    status = int(every_rank[:, 3].max())
    return StepReport(total / runtime.world_size, bad_losses == 0, bad_gradients == 0, status or None)


def check_finite(verdict: StepReport, local_loss: Tensor, blame: StepContext, *, scaled: bool) -> None:
    """Stops before the update when the loss or a gradient of any rank is not finite.

    With float16's loss scaler (`scaled`) a gradient that overflows is ordinary: the scaler skips that update
    and halves its scale; no longer so once the scale is below 1, for then the gradient itself is infinite.

    Raises:
        UserError: names the step, the rate and the indices of this rank's samples.
    """
    if verdict.loss_finite and (verdict.gradients_finite or scaled):
        return
    what = "the loss" if not verdict.loss_finite else "a gradient"
    where = "here" if not bool(local_loss.isfinite()) or verdict.loss_finite else "on another rank"
    raise UserError(
        f"{what} is not finite at step {blame.step} ({where}; learning rate {blame.rate:.6g}; sample indices "
        f"{blame.indices.tolist()}): the update was not made and the last checkpoint is sound; lower "
        "optim.lr, use --hardware.precision float32, or look at these images"
    )
