"""Checks of speed and memory: a step with everything and the bare network, optimizers, torch.compile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import torch

from siamtransfer.doctor.findings import Finding, check, judged, measured
from siamtransfer.doctor.workbench import Workbench, tf32
from siamtransfer.methods import StepInfo
from siamtransfer.optim.config import OptimConfig
from siamtransfer.optim.optimizers import build_optimizer
from siamtransfer.training.guard import StepContext
from siamtransfer.training.step import Updater, train_step
from siamtransfer.views.dataset import augment_batch

RULES: tuple[Literal["sgd", "lars", "larc"], ...] = ("sgd", "lars", "larc")
AFTER_COMPILE = 0.05  # largest difference of a loss in half precision


@check("speed", seconds=60, needs="a device")
def check_speed(bench: Workbench) -> Iterator[Finding]:
    """Images a second of SimSiam's network alone, with the check before updates, and with augmentation."""
    with tf32(True):
        for count in (4,) if bench.tiny else (64, 128, 256):
            steps = steps_of(bench, count)
            seconds = {name: bench.seconds(step, 12) for name, step in steps.items()}
            for name, value in seconds.items():
                share = value / seconds["network"]
                text = f"{count / value:.0f} images/s, {1e3 * value:.1f} ms, {share:.3f} of network"
                yield measured(f"speed/{count}/{name}", count / value, text)
            memory = bench.peak(steps["augmented"])
            yield measured(
                f"speed/{count}/memory_GiB", memory, f"{memory:.2f} GiB beside weights and momentum"
            )


def steps_of(bench: Workbench, count: int) -> dict[str, Callable[[], object]]:
    """Three ways to make a step of SimSiam on `count` images: each does more than the one before."""
    model = bench.simsiam().to(bench.device)
    model.to(memory_format=torch.channels_last)
    views, batch = bench.batch("simsiam", count)
    ready = augment_batch(batch, views, bench.device, channels_last=True)
    runtime, info = bench.runtime(), StepInfo(5, 100, 10)
    optimizer = build_optimizer(OptimConfig(batch_size=256, lr=1e-4), model.groups())
    updater = Updater(model, optimizer, runtime.scaler(), runtime)
    context = StepContext(0, 1e-4, torch.arange(count))

    def network() -> None:
        with runtime.autocast():
            loss = model(ready).loss
        updater.scaler.scale(loss).backward()
        updater.update()
        updater.zero_grad()

    def augmented() -> None:
        train_step(updater, augment_batch(batch, views, bench.device, channels_last=True), context, info)

    return {
        "network": network,
        "checked": lambda: train_step(updater, ready, context, info),
        "augmented": augmented,
    }


@check("optimizers", seconds=10, needs="a device")
def check_optimizers(bench: Workbench) -> Iterator[Finding]:
    """The time of an update by each rule."""
    model = bench.simsiam().to(bench.device)
    for p in model.parameters():
        p.grad = torch.randn_like(p) * 1e-3 if p.requires_grad else None
    for rule in RULES:
        optimizer = build_optimizer(OptimConfig(batch_size=256, name=rule), model.groups())
        seconds = bench.seconds(optimizer.step, 10)
        yield measured(f"optimizers/{rule}_ms", 1e3 * seconds, f"{1e3 * seconds:.2f} ms an update")


@check("compile", seconds=90, needs="a GPU")
def check_compile(bench: Workbench) -> Iterator[Finding]:
    """Forward and backward with a compiled backbone: the loss, the time, and evaluation after it."""
    runtime = bench.runtime()
    model = bench.simsiam().to(bench.device)
    model.to(memory_format=torch.channels_last)
    views = bench.images(64)

    def step() -> float:
        with runtime.autocast():
            loss = model(views).loss
        loss.backward()
        model.zero_grad(set_to_none=True)
        return float(loss.detach())

    with tf32(True):
        eager, expected = bench.seconds(step, 12), step()
        model.backbone.compile()
        first = bench.seconds(step, 1, 0)
        compiled, found = bench.seconds(step, 12), step()
    yield measured("compile/start_s", first, f"the first step takes {first:.0f} s")
    yield measured(
        "compile/speed_up", eager / compiled, f"{1e3 * eager:.1f} -> {1e3 * compiled:.1f} ms a step"
    )
    text = f"loss {found:.5f} against {expected:.5f}"
    yield judged("compile/loss", abs(found - expected) < AFTER_COMPILE, text)
    model.eval()
    with torch.inference_mode(), runtime.autocast():
        features = model.backbone(views[0][:32])
    yield judged("compile/evaluates", bool(torch.isfinite(features).all()), "a smaller batch in eval mode")
