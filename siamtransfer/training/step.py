"""One training step: forward, backward, the check on all ranks, and only then the update."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from siamtransfer.distributed.runtime import Runtime, unwrap
from siamtransfer.distributed.sharding import gathered, without_exchange
from siamtransfer.methods import StepInfo, StepOutput
from siamtransfer.training.compiling import uncompiled
from siamtransfer.training.device_guard import DeviceGuard, LateReport
from siamtransfer.training.guard import StepContext, StepReport, check_finite, step_report
from siamtransfer.training.step_graph import StepGraph


@dataclass
class Updater:
    """What changes the weights of a model. Every training of this package updates through it.

    Attributes:
        model: as `Runtime.distribute` returned it.
        scaler: the loss scaler that float16 needs; disabled for the other precisions.
        late: the guard whose verdict is read one step late; None where it is read before every update.
        graph: the recorded forward and backward pass; None where each step launches its own.
        compiled: whether parts of the model are compiled by torch.compile.
        see_gradients: called in every step with the gradients in place, before the method changes them; None
            where nobody asks.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    runtime: Runtime
    late: DeviceGuard | None = None
    graph: StepGraph | None = None
    compiled: bool = False
    see_gradients: Callable[[StepInfo], None] | None = None

    def step(self, loss: Tensor, context: StepContext, exit_status: int | None) -> StepReport:
        """Backward from `loss` (a scalar), the check on all ranks, and the update.

        Raises:
            UserError: the loss or a gradient is not finite on some rank; the weights are unchanged.
        """
        self.scaler.scale(loss).backward()
        report = self._read(loss, context, exit_status)
        self.update()
        self.zero_grad()
        return report

    def check(self, loss: Tensor, context: StepContext, exit_status: int | None) -> StepReport | LateReport:
        """The report of all ranks after backward; raises as `check_finite`, with `late` one step later."""
        if self.late is not None:
            return self.late.check(loss, self.model, context, exit_status)
        return self._read(loss, context, exit_status)

    def _read(self, loss: Tensor, context: StepContext, exit_status: int | None) -> StepReport:
        if self.scaler.is_enabled():
            self.scaler.unscale_(self.optimizer)
        report = step_report(loss, self.model.parameters(), exit_status, self.runtime)
        may_overflow = self.scaler.is_enabled() and self.scaler.get_scale() >= 1
        check_finite(report, loss, context, scaled=may_overflow)
        return report

    def update(self) -> None:
        """The optimizer's step; the scaler skips it where a scaled gradient overflowed."""
        if self.late is not None:
            self.late.update()
            return
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def zero_grad(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    @property
    def is_sound(self) -> bool:
        """Whether the state may be saved: the last step's loss and gradients were finite on every rank."""
        return self.late is None or self.late.is_sound

    def settle(self) -> None:
        """Raises the error of the last step, if its verdict was not read yet and is bad."""
        if self.late is not None:
            self.late.settle()

    @contextlib.contextmanager
    def measuring(self) -> Iterator[None]:
        """Around a measurement between two steps, which all ranks make: the last step is settled, compiled
        parts run as they were written, and a sharded model is whole on every rank."""
        self.settle()
        with uncompiled(compiled=self.compiled), gathered(self.model):
            yield


def train_step(
    updater: Updater,
    views: list[Tensor],
    context: StepContext,
    info: StepInfo,
    *,
    grad_accum_steps: int = 1,
    exit_status: int | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> tuple[StepOutput, StepReport | LateReport]:
    """One step of a method on this rank's `views`, each [N, 3, S, S].

    The method's before_forward, before_update and after_update are called once each, whatever
    `grad_accum_steps` is. The output is that of the last micro-batch. `meanwhile` is called when forward and
    backward pass are launched and before the host waits for them.

    Raises:
        UserError: the loss or a gradient is not finite on some rank; the weights are unchanged.
    """
    runtime, method = updater.runtime, unwrap(updater.model)
    method.before_forward(info)
    index = None
    if method.uses_index:
        assert context.indices is not None
        index = context.indices.to(runtime.device)
    if updater.graph is not None:
        loss, output = updater.graph(views)
    else:
        loss, output = forward_backward(
            updater.model, views, grad_accum_steps, runtime, updater.scaler, index
        )
    if meanwhile is not None:
        meanwhile()
    report = updater.check(loss, context, exit_status)
    if updater.see_gradients is not None:
        updater.see_gradients(info)
    with updater.late.explained() if updater.late is not None else contextlib.nullcontext():
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
        with contextlib.nullcontext() if last or runtime.world_size == 1 else without_exchange(model):
            with runtime.autocast():
                output = model(list(rows_of_one[: len(views)]), *rows_of_one[len(views) :])
            scaler.scale(output.loss / len(micro_batches)).backward()
        losses.append(output.loss.detach())
    return torch.stack(losses).mean(), output
