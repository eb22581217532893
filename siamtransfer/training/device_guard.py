"""The check of an update without a wait: the device takes a bad update back, the host reads one step late.

guard.py has the check that reads before every update. Here all ranks exchange the same numbers, but they
stay on the device, where they decide whether weights and optimizer state keep their new values. The host
reads them when the next step is on its way, so the device always has work.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from siamtransfer.distributed.runtime import Runtime
from siamtransfer.training.guard import StepContext, StepReport, check_finite, exchange, read_report
from siamtransfer.utils.errors import UserError


def refuse_late_guard(runtime: Runtime) -> None:
    """Raises UserError in float16, whose loss scaler reads every step's gradients on the host."""
    if runtime.dtype == torch.float16:
        raise UserError(
            "hardware.guard device does not work in float16, whose loss scaler reads numbers on the host: "
            "take --hardware.guard step, or --hardware.precision bfloat16 or float32"
        )


@dataclass
class LateReport:
    """The report of a step that the host may not have read yet.

    Attributes:
        exit_status: that of the step before, which has been read: all ranks stop one step later.
    """

    exit_status: int | None
    _every_rank: Tensor
    _written: torch.cuda.Event | None
    _local_loss: Tensor
    _context: StepContext

    @cached_property
    def report(self) -> StepReport:
        """The report; the first access waits until the device has computed it."""
        if self._written is not None:
            self._written.synchronize()
        return read_report(self._every_rank)

    @property
    def is_sound(self) -> bool:
        """Whether the loss and the gradients are finite on every rank."""
        return self.report.loss_finite and self.report.gradients_finite

    @property
    def loss(self) -> float:
        """The mean over the ranks; raises as `require_sound`."""
        self.require_sound()
        return self.report.loss

    def require_sound(self) -> None:
        """Raises UserError, on every rank alike, when the loss or a gradient of any rank is not finite."""
        check_finite(self.report, self._local_loss, self._context, scaled=False)


@dataclass
class DeviceGuard:
    """Makes updates that the device takes back where a loss or gradient of any rank is not finite.

    After such a step no later update changes anything either, so the weights and the optimizer state stay
    those before it until the host has read its verdict, in the next step at the latest. Buffers that a
    forward pass moves (running statistics, queues) and what a method's `after_update` sets are not taken
    back; nothing may be saved before `is_sound` is True.
    """

    optimizer: torch.optim.Optimizer
    _sound: Tensor | None = None
    _last: LateReport | None = field(default=None, repr=False)

    def check(
        self, loss: Tensor, model: nn.Module, context: StepContext, exit_status: int | None
    ) -> LateReport:
        """The report of this step, after backward and before `update`.

        Raises:
            UserError: a loss or gradient of the step before is not finite on some rank.
        """
        every_rank = exchange(loss, model.parameters(), exit_status)
        sound = (every_rank[:, 1:3] == 0).all()
        self._sound = sound if self._sound is None else self._sound & sound
        written = None
        on_host = every_rank
        if every_rank.is_cuda:
            on_host = torch.empty(every_rank.shape, dtype=every_rank.dtype, pin_memory=True)
            on_host.copy_(every_rank, non_blocking=True)
            written = torch.cuda.Event()
            written.record()
        status = None
        if self._last is not None:
            self._last.require_sound()
            status = self._last.report.exit_status
        self._last = LateReport(status, on_host, written, loss.detach(), context)
        return self._last

    @torch.no_grad()
    def update(self) -> None:
        """The optimizer's step, taken back on the device unless all steps so far were sound."""
        assert self._sound is not None, "check() comes before update()"
        before = self._tensors()
        copies = [torch.empty_like(tensor) for tensor in before]
        torch._foreach_copy_(copies, before)
        self.optimizer.step()
        known = {id(tensor): copy for tensor, copy in zip(before, copies, strict=True)}
        for tensor in self._tensors():
            old = known.get(id(tensor))  # momentum that this step created was zero before
            tensor.copy_(torch.where(self._sound, tensor, 0 if old is None else old))

    def _tensors(self) -> list[Tensor]:
        """All that an update changes on the device: weights with a gradient, and the optimizer's state."""
        weights = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        states = [
            value
            for weight in weights
            for value in self.optimizer.state.get(weight, {}).values()
            if isinstance(value, Tensor) and value.device == weight.device
        ]
        return [*weights, *states]

    @property
    def is_sound(self) -> bool:
        """Whether the last step was sound; waits for its verdict. The same on every rank."""
        return self._last is None or self._last.is_sound

    def settle(self) -> None:
        """Raises UserError, on every rank alike, when the last step was not sound; waits for its verdict."""
        if self._last is not None:
            self._last.require_sound()

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Work on buffers that a bad step may have touched: an error there becomes that step's own."""
        try:
            yield
        except RuntimeError:
            self.settle()
            raise
