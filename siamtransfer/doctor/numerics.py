"""Checks that the device computes what the CPU does: augmentation, a step, precisions, every method."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from siamtransfer.backbones.architecture import build_backbone
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.doctor.findings import Finding, check, judged, measured
from siamtransfer.doctor.workbench import Workbench, narrow_simsiam, tf32
from siamtransfer.methods import METHODS, Method, SimSiam, StepInfo
from siamtransfer.optim.config import OptimConfig
from siamtransfer.optim.optimizers import build_optimizer, set_lr
from siamtransfer.training.guard import StepContext
from siamtransfer.training.step import Updater, forward_backward, train_step
from siamtransfer.utils.errors import UserError
from siamtransfer.views.dataset import augment_batch

CPU = torch.device("cpu")
RECIPES = ("simsiam", "byol", "moco-v1", "swav", "dino")
PAINTED = {False: 2e-3, True: 3e-2}
"""Largest difference of a normalised pixel to the CPU's, without and with TF32."""

LEAST_COSINE = {"float32": 0.9999, "tf32": 0.95, "bfloat16": 0.6, "float16": 0.85}
"""Between the gradient of ResNet-50 in a precision on the device and in float32 on the CPU."""

SMALL_OPTIONS: dict[str, dict[str, int]] = {
    "simsiam": {"dim": 32},
    "simsiam-variants": {"dim": 32},
    "simclr": {"dim": 16},
    "moco": {"dim": 16, "queue": 64},
    "moco-v3": {"dim": 16, "hidden": 32},
    "byol": {"dim": 16, "hidden": 32},
    "swav": {"dim": 16, "hidden": 32, "prototypes": 30},
    "dino": {"dim": 64, "hidden": 32, "bottleneck": 16},
    "barlow-twins": {"dim": 64, "hidden": 64},
    "vicreg": {"dim": 64, "hidden": 64},
    "directpred": {"dim": 16, "hidden": 32},
    "unigrad": {"dim": 16, "hidden": 32},
}
"""Options that make a method small."""


@check("painting", seconds=30, needs="a device")
def check_painting(bench: Workbench) -> Iterator[Finding]:
    """The augmentation of five recipes, with and without TF32."""
    for name in RECIPES:
        views, batch = bench.batch(name, 8 if bench.tiny else 64)
        expected = augment_batch(batch, views, CPU)
        for allowed, limit in PAINTED.items():
            with tf32(allowed):
                found = augment_batch(batch, views, bench.device, channels_last=True)
            worst = max(float((a.cpu() - b).abs().max()) for a, b in zip(found, expected, strict=True))
            label = f"painting/{name}{'/tf32' if allowed else ''}"
            yield judged(label, worst < limit, f"differs from the CPU by {worst:.1e} of a deviation", worst)
    yield judged(
        "painting/channels_last",
        all(view.is_contiguous(memory_format=torch.channels_last) for view in found),
        "views come with channels last",
    )


@check("parity", seconds=30, needs="a device")
def check_parity(bench: Workbench) -> Iterator[Finding]:
    """Loss and gradient of a step: in float64 equal to the CPU's, in other precisions near them."""
    small, generator = narrow_simsiam().double(), torch.Generator().manual_seed(0)
    views = list(torch.randn(2, 12, 3, 32, 32, dtype=torch.float64, generator=generator))
    (loss, gradient), (other_loss, other) = (
        gradient_of(small, views, Runtime(device, torch.float32)) for device in (CPU, bench.device)
    )
    worst, largest = float((gradient - other).abs().max()), float(gradient.abs().max())
    yield judged(
        "parity/float64",
        abs(loss - other_loss) < 1e-9 and worst < 1e-8 + 1e-5 * largest,
        f"loss differs by {abs(loss - other_loss):.1e}, gradient by {worst:.1e} of {largest:.1e}",
    )
    model = bench.simsiam()
    side, count = (32, 8) if bench.tiny else (96, 16)
    views = list(torch.randn(2, count, 3, side, side, generator=generator))
    expected = gradient_of(model, views, Runtime(CPU, torch.float32))
    for label, least in LEAST_COSINE.items():
        if label == "float16" and bench.device.type == "cpu":
            continue
        dtype = torch.float32 if label == "tf32" else getattr(torch, label)
        with tf32(label != "float32"):
            found = gradient_of(model, views, Runtime(bench.device, dtype))
        yield compare_gradients(f"parity/{label}", found, expected, least)
    loss, _ = gradient_of(model, views, bench.runtime(), grad_accum_steps=2)
    yield judged("parity/accumulation", math.isfinite(loss), f"loss of two micro-batches {loss:.5f}")


def compare_gradients(
    name: str, found: tuple[float, Tensor], expected: tuple[float, Tensor], least: float
) -> Finding:
    """PASS where the gradients point the same way at nearly the same length, and the losses are near."""
    cosine = float(nn.functional.cosine_similarity(found[1], expected[1], dim=0))
    ratio = float(found[1].norm() / expected[1].norm())
    good = cosine > least and 0.8 < ratio < 1.25 and abs(found[0] - expected[0]) < 0.02
    text = f"gradient: cosine {cosine:.5f}, length {ratio:.4f}; loss {found[0]:.5f} against {expected[0]:.5f}"
    return judged(name, good, text, cosine)


def gradient_of(
    method: SimSiam, views: list[Tensor], runtime: Runtime, grad_accum_steps: int = 1
) -> tuple[float, Tensor]:
    """The loss of a copy of `method` on the runtime's device, and its gradient as one vector on the CPU."""
    method = copy.deepcopy(method).to(runtime.device)
    method.to(memory_format=torch.channels_last)
    scaler = runtime.scaler()
    inputs = [view.to(runtime.device) for view in views]
    loss, _ = forward_backward(method, inputs, grad_accum_steps, runtime, scaler)
    scale = scaler.get_scale() if scaler.is_enabled() else 1.0
    gradients = [p.grad.flatten().double() for p in method.parameters() if p.grad is not None]
    return float(loss), torch.cat(gradients).cpu() / scale


@check("layout", seconds=10, needs="a device")
def check_layout(bench: Workbench) -> Iterator[Finding]:
    """Convolutions keep channels last, without which mixed precision is slow."""
    model = bench.simsiam().to(bench.device)
    model.to(memory_format=torch.channels_last)
    kept: dict[str, bool] = {}

    def note(name: str, output: Tensor) -> None:
        kept[name] = output.is_contiguous(memory_format=torch.channels_last)

    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda m, i, output, name=name: note(name, output))
    runtime = bench.runtime()
    forward_backward(model, bench.images(8), 1, runtime, runtime.scaler())
    lost = [name for name, there in kept.items() if not there]
    yield judged(
        "layout/channels_last", not lost, f"{len(kept) - len(lost)} convolutions keep it, {len(lost)} lose it"
    )
    other = [p for p in model.parameters() if p.grad is not None and p.grad.stride() != p.stride()]
    yield measured(
        "layout/gradients_of_other_strides", len(other), f"{len(other)}; each costs several ranks a copy"
    )


@check("guard", seconds=5, needs="a device")
def check_guard(bench: Workbench) -> Iterator[Finding]:
    """A loss that is not finite stops before the update."""
    updater, views = _updater(bench, torch.float32)
    before = [p.detach().clone() for p in updater.model.parameters()]
    try:
        _step(updater, [views[0] * torch.nan, views[1]])
        stopped = False
    except UserError as error:
        stopped = "not finite" in str(error)
    same = all(map(torch.equal, before, updater.model.parameters()))
    yield judged("guard/not_finite", stopped and same, "the run stops and the weights stay")


@check("overflow", seconds=5, needs="a device")
def check_overflow(bench: Workbench) -> Iterator[Finding]:
    """An overflow in float16 skips the update and halves the loss scale."""
    updater, views = _updater(bench, torch.float16)
    start = 2.0**40
    updater.scaler.load_state_dict(updater.scaler.state_dict() | {"scale": start})
    before = [p.detach().clone() for p in updater.model.parameters()]
    _step(updater, views)
    same, scale = all(map(torch.equal, before, updater.model.parameters())), updater.scaler.get_scale()
    yield judged(
        "overflow/skips_and_halves", same and scale == start / 2, f"scale {scale:g} after {start:g}", scale
    )


def _updater(bench: Workbench, dtype: torch.dtype) -> tuple[Updater, list[Tensor]]:
    """Narrow SimSiam in `dtype` on the device, and two views of 8 images."""
    model, runtime = narrow_simsiam().to(bench.device), bench.runtime(dtype)
    optimizer = build_optimizer(OptimConfig(batch_size=256), model.groups())
    views = list(torch.randn(2, 8, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(bench.device))
    return Updater(model, optimizer, runtime.scaler(), runtime), views


def _step(updater: Updater, views: list[Tensor]) -> float:
    context = StepContext(0, 0.1, torch.arange(len(views[0])))
    return train_step(updater, views, context, StepInfo(0, 100, 10))[1].loss


@check("methods", seconds=25, needs="a device")
def check_methods(bench: Workbench) -> Iterator[Finding]:
    """Three steps of each method: finite losses, and every tensor on the device."""
    for name in METHODS:
        torch.manual_seed(0)
        kind = METHODS[name]
        method = kind(
            build_backbone("resnet18", width=8, stem="small"), kind.Config(**SMALL_OPTIONS.get(name, {}))
        )
        method.prepare(64, torch.arange(64) % 4)
        losses = three_steps(method, bench)
        tensors = [*method.parameters(), *method.buffers()]
        elsewhere = [tensor for tensor in tensors if tensor.device.type != bench.device.type]
        text = f"losses {', '.join(f'{loss:.4f}' for loss in losses)}"
        if elsewhere:
            text += f"; {len(elsewhere)} tensors are not on {bench.device}"
        yield judged(f"methods/{name}", all(map(math.isfinite, losses)) and not elsewhere, text)


def three_steps(method: Method, bench: Workbench) -> list[float]:
    """The losses of three steps on views of noise, in the device's precision."""
    method.to(bench.device).to(memory_format=torch.channels_last)
    sizes = [32, 32, 16, 16] if method.multi_crop else [32, 32]
    generator = torch.Generator().manual_seed(0)
    views = [torch.randn(16, 3, size, size, generator=generator).to(bench.device) for size in sizes]
    optim = OptimConfig(batch_size=16, epochs=3)
    runtime = bench.runtime()
    updater = Updater(method, build_optimizer(optim, method.groups()), runtime.scaler(), runtime)
    losses = []
    for step in range(3):
        lr = set_lr(updater.optimizer, optim, step, 5)
        context = StepContext(step, lr, torch.arange(16))
        losses.append(train_step(updater, views, context, StepInfo(step, 15, 5))[1].loss)
    return losses
