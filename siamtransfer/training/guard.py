"""The check before an update: are loss and gradients finite on every rank, and has a stop signal arrived?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.distributed.sharding import local
from siamtransfer.utils.errors import UserError


@dataclass(frozen=True)
class StepReport:
    """What all ranks know of one step.

    Attributes:
        loss: the mean over the ranks.
        loss_finite, gradients_finite: whether they are finite on every rank.
        exit_status: the exit status to stop with (143 after SIGTERM, 130 after Ctrl-C); None to continue.
    """

    loss: float
    loss_finite: bool
    gradients_finite: bool
    exit_status: int | None


@dataclass(frozen=True)
class StepContext:
    """What an error message tells about a step.

    Attributes:
        step: counted from 0.
        lr: its learning rate.
        indices: int64[n], the positions in the data set of this rank's samples; None where they are unknown.
        advice: what the user may change.
    """

    step: int
    lr: float
    indices: Tensor | None = None
    advice: str = "lower optim.lr, use --hardware.precision float32, or look at these images"


def step_report(
    loss: Tensor, parameters: Iterable[nn.Parameter], exit_status: int | None, runtime: Runtime
) -> StepReport:
    """Collects the loss (a scalar), the gradients' finiteness and the exit status of all ranks, in one
    exchange and one read on the host.

    Every rank gets the same report, so all ranks continue or all ranks stop, and none waits for another.
    """
    return read_report(exchange(loss, parameters, exit_status))


def exchange(loss: Tensor, parameters: Iterable[nn.Parameter], exit_status: int | None) -> Tensor:
    """A row [loss, loss is not finite, a gradient is not finite, exit status or 0] of each rank,
    float64[world_size, 4], on the device; the host reads nothing."""
    gradients = [local(p.grad) for p in parameters if p.grad is not None]
    norms = torch.stack(torch._foreach_norm(gradients)).sum() if gradients else loss.new_zeros(())
    own = torch.stack(
        [
            loss.detach().double(),
            (~loss.detach().isfinite()).double(),
            (~norms.isfinite()).double(),
            torch.full_like(loss, exit_status or 0, dtype=torch.float64),
        ]
    )
    return collectives.all_gather(own[None])


def read_report(every_rank: Tensor) -> StepReport:
    """The report from the rows of `exchange`."""
    rows = every_rank.cpu()
    total, bad_losses, bad_gradients, _ = rows.sum(dim=0).tolist()
    status = int(rows[:, 3].max())
    return StepReport(total / len(rows), bad_losses == 0, bad_gradients == 0, status or None)


def check_finite(report: StepReport, local_loss: Tensor, context: StepContext, *, scaled: bool) -> None:
    """Raises before the update when the loss or a gradient of any rank is not finite.

    With float16's loss scaler (`scaled`) an overflowing gradient is ordinary: the scaler skips that update
    and halves its scale. Once the scale is below 1 the gradient itself is infinite, and `scaled` is False.

    Raises:
        UserError: names the step, the learning rate and the indices of this rank's samples.
    """
    if report.loss_finite and (report.gradients_finite or scaled):
        return
    what = "the loss" if not report.loss_finite else "a gradient"
    where = "here" if not bool(local_loss.isfinite()) or report.loss_finite else "on another rank"
    samples = "" if context.indices is None else f"; sample indices {context.indices.tolist()}"
    raise UserError(
        f"{what} is not finite at step {context.step} ({where}; learning rate {context.lr:.6g}{samples}): "
        f"the update was not made and the last checkpoint is sound; {context.advice}"
    )
