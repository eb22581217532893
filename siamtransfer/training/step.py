"""One training step: forward, backward, a last look on all ranks together, and only then the new weights."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor

from siamtransfer.distributed.runtime import Runtime, unwrap
from siamtransfer.methods import StepInfo, StepOutput
from siamtransfer.training.guard import StepContext, StepReport, check_finite, step_report


def update(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    views: list[Tensor],
    parts: int,
    runtime: Runtime,
    exit_status: int | None,
    blame: StepContext,
    info: StepInfo,
) -> tuple[StepOutput, StepReport]:
    """One step: forward, backward, a last look on all ranks together, and only then the new weights. The
    method acts at its three moments, once each however many parts there are."""
    method = unwrap(model)
    method.before_forward(info)
    index = blame.indices.to(runtime.device) if method.uses_index else None
    loss, out = forward_backward(model, views, parts, runtime, scaler, index)
    if scaler.is_enabled():
        scaler.unscale_(optimizer)
    verdict = step_report(loss, model.parameters(), exit_status, runtime)
    check_finite(verdict, loss, blame, scaled=scaler.is_enabled() and scaler.get_scale() >= 1)
    method.before_update(info)
    scaler.step(optimizer)
    scaler.update()
    method.after_update(info)
    optimizer.zero_grad(set_to_none=True)
    return out, verdict


def forward_backward(
    model: torch.nn.Module,
    views: list[Tensor],
    parts: int,
    runtime: Runtime,
    scaler: torch.amp.GradScaler,
    index: Tensor | None = None,
) -> tuple[Tensor, StepOutput]:
    """Adds the gradients of the mean loss over this rank's views; returns it with the last part's output.

    The views, and the `index` of their images where the method uses it, are split into `parts` that go
    through one after the other; ranks exchange gradients once, with the last part.
    """
    losses = []
    rows = views if index is None else [*views, index]
    chunks = list(zip(*(each.chunk(parts) for each in rows), strict=True))
    for number, chunk in enumerate(chunks, 1):
        last = number == len(chunks)
        with contextlib.nullcontext() if last or runtime.world_size == 1 else model.no_sync():  # type: ignore[operator]
            with runtime.autocast():
                out = model(list(chunk[: len(views)]), *chunk[len(views) :])
            scaler.scale(out.loss / len(chunks)).backward()
        losses.append(out.loss.detach())
    return torch.stack(losses).mean(), out
