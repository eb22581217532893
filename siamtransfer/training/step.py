"""One training step: forward, backward, the check on all ranks, and only then the update."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from siamtransfer.distributed.runtime import Runtime, unwrap
from siamtransfer.methods import StepInfo, StepOutput
from siamtransfer.training.guard import StepContext, StepReport, check_finite, step_report


@dataclass
class Updater:
    """What changes the weights of a model. Every training of this package updates through it.

    Attributes:
        model: as `Runtime.distribute` returned it.
        scaler: the loss scaler that float16 needs; disabled for the other precisions.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    runtime: Runtime

    def step(self, loss: Tensor, context: StepContext, exit_status: int | None) -> StepReport:
        """Backward from `loss` (a scalar), the check on all ranks, and the update.

        Raises:
            UserError: the loss or a gradient is not finite on some rank; the weights are unchanged.
        """
        self.scaler.scale(loss).backward()
        report = self.check(loss, context, exit_status)
        self.update()
        self.zero_grad()
        return report

    def check(self, loss: Tensor, context: StepContext, exit_status: int | None) -> StepReport:
        """The report of all ranks after backward; raises as `check_finite`."""
        if self.scaler.is_enabled():
            self.scaler.unscale_(self.optimizer)
        report = step_report(loss, self.model.parameters(), exit_status, self.runtime)
        may_overflow = self.scaler.is_enabled() and self.scaler.get_scale() >= 1
        check_finite(report, loss, context, scaled=may_overflow)
        return report

    def update(self) -> None:
        """The optimizer's step; the scaler skips it where a scaled gradient overflowed."""
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def zero_grad(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)


def train_step(
    updater: Updater,
    views: list[Tensor],
    context: StepContext,
    info: StepInfo,
    *,
    grad_accum_steps: int = 1,
    exit_status: int | None = None,
) -> tuple[StepOutput, StepReport]:
    """One step of a method on this rank's `views`, each [N, 3, S, S].

    The method's before_forward, before_update and after_update are called once each, whatever
    `grad_accum_steps` is. The output is that of the last micro-batch.

    Raises:
        UserError: the loss or a gradient is not finite on some rank; the weights are unchanged.
    """
    runtime, method = updater.runtime, unwrap(updater.model)
    method.before_forward(info)
    index = None
    if method.uses_index:
        assert context.indices is not None
        index = context.indices.to(runtime.device)
    loss, output = forward_backward(updater.model, views, grad_accum_steps, runtime, updater.scaler, index)
    report = updater.check(loss, context, exit_status)
    method.before_update(info)
    updater.update()
    method.after_update(info)
    updater.zero_grad()
    return output, report


def forward_backward(
    model: nn.Module,
    views: list[Tensor],
    grad_accum_steps: int,
    runtime: Runtime,
    scaler: torch.amp.GradScaler,
    index: Tensor | None = None,
) -> tuple[Tensor, StepOutput]:
    """Adds the gradients of the mean loss over this rank's views; returns that loss and the output of the
    last micro-batch.

    The views, and the `index` int64[N] of their images where the method uses it, are split into
    `grad_accum_steps` micro-batches that go through one after the other. Ranks exchange gradients once, with
    the last one.
    """
    losses = []
    rows = views if index is None else [*views, index]
    micro_batches = list(zip(*(tensor.chunk(grad_accum_steps) for tensor in rows), strict=True))
    for number, rows_of_one in enumerate(micro_batches, 1):
        last = number == len(micro_batches)
        with contextlib.nullcontext() if last or runtime.world_size == 1 else model.no_sync():  # type: ignore[operator]
            with runtime.autocast():
                output = model(list(rows_of_one[: len(views)]), *rows_of_one[len(views) :])
            scaler.scale(output.loss / len(micro_batches)).backward()
        losses.append(output.loss.detach())
    return torch.stack(losses).mean(), output
