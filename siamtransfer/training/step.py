"""One training step: forward, backward, a last look on all ranks together, and only then the new weights."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor

from siamtransfer.distributed.runtime import Runtime, undistributed
from siamtransfer.methods import Moment, StepOutput
from siamtransfer.training.guard import Blame, Verdict, judge, refuse_non_finite


def update(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    views: list[Tensor],
    parts: int,
    place: Runtime,
    exit_status: int | None,
    blame: Blame,
    moment: Moment,
) -> tuple[StepOutput, Verdict]:
    """One step: forward, backward, a last look on all ranks together, and only then the new weights. The
    method acts at its three moments, once each however many parts there are."""
    method = undistributed(model)
    method.before_forward(moment)
    index = blame.indices.to(place.device) if method.uses_index else None
    loss, out = forward_backward(model, views, parts, place, scaler, index)
    if scaler.is_enabled():
        scaler.unscale_(optimizer)
    verdict = judge(loss, model.parameters(), exit_status, place)
    refuse_non_finite(verdict, loss, blame, scaled=scaler.is_enabled() and scaler.get_scale() >= 1)
    method.before_update(moment)
    scaler.step(optimizer)
    scaler.update()
    method.after_update(moment)
    optimizer.zero_grad(set_to_none=True)
    return out, verdict


def forward_backward(
    model: torch.nn.Module,
    views: list[Tensor],
    parts: int,
    place: Runtime,
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
        with contextlib.nullcontext() if last or place.world == 1 else model.no_sync():  # type: ignore[operator]
            with place.autocast():
                out = model(list(chunk[: len(views)]), *chunk[len(views) :])
            scaler.scale(out.loss / len(chunks)).backward()
        losses.append(out.loss.detach())
    return torch.stack(losses).mean(), out
