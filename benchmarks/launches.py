"""How many kernels painting, updates and clipping launch, and how long the host takes to launch them.

    python -m benchmarks.launches [--batch 64] [--device cpu | cuda]

Launches are counted without a GPU: the code runs on fake CUDA tensors, and every operation counts that is
neither a view nor an allocation. Operations over lists of tensors count as torch's multi-tensor kernels split
them (by tensors and by blocks of 65,536 elements), or as one a tensor where torch has no such kernel.
Copies to the device count. A product by a library may launch more than one kernel, which is not
seen.
"Tensor by tensor" is the same arithmetic without multi-tensor operations, for comparison.
The host's time is that of the same calls on CPU tensors of hardly any elements (views of 8 pixels, weights
of 8 values), where nearly nothing but launching is left; the median of 20.
With --device cuda the profiler counts the kernels instead, and the host's time is up to the last launch.
The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from siamtransfer.backbones.architecture import build_backbone
from siamtransfer.methods.base import ParameterGroup
from siamtransfer.methods.parts.clipping import clip_each
from siamtransfer.methods.parts.ema import momentum_copy, move
from siamtransfer.optim.config import OptimConfig
from siamtransfer.optim.optimizers import build_optimizer
from siamtransfer.utils.log import print_messages, say
from siamtransfer.utils.strict_json import to_json
from siamtransfer.views.dataset import Painting, ViewBatch, augment_batch
from siamtransfer.views.random_params import sample_params
from siamtransfer.views.recipes import recipe
from siamtransfer.views.view_spec import Recipe

RECIPES = ("simsiam", "byol", "moco-v1", "moco-v2", "swav", "dino")
PAINTINGS: tuple[Painting, ...] = ("exact", "fused")
REPEATS = 20
ALLOCATIONS = {"_unsafe_view", "empty", "empty_like", "empty_strided", "new_empty", "lift_fresh", "detach"}
TENSORS_OF_A_KERNEL = {
    1: 110,
    2: 64,
    3: 48,
    4: 36,
}  # by the number of lists; ATen/native/cuda/MultiTensorApply
BLOCKS_OF_A_KERNEL = 320
ELEMENTS_OF_A_BLOCK = 65_536


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=64, help="images of a GPU")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    args = parser.parse_args()
    print_messages()
    rows = {**painting(args.batch, args.device), **updates(args.device)}
    say(f"{'':34} launches   host ms")
    for name, (launches, seconds) in rows.items():
        say(f"{name:34} {launches:8d} {1000 * seconds:9.2f}")
    metrics = {name: {"launches": n, "host_ms": round(1000 * s, 3)} for name, (n, s) in rows.items()}
    print(to_json({"task": "benchmark/launches", "metrics": metrics, "protocol": vars(args)}))


def painting(batch: int, device: str) -> dict[str, tuple[int, float]]:
    """Launches and host seconds of painting all views of `batch` images, by recipe and implementation."""
    rows = {}
    for name in RECIPES:
        for kind in PAINTINGS:
            full, tiny = recipe(name), _of_8_pixels(recipe(name))

            rows[f"painting, {name}, {kind}"] = measure(
                partial(_painter, full, batch, "cuda", kind),
                partial(_painter, tiny, batch, "cpu", kind),
                device,
            )
    return rows


def updates(device: str) -> dict[str, tuple[int, float]]:
    """Launches and host seconds of updates and the like over the parameters of a ResNet-50."""
    rows = {}
    for name, build in UPDATES.items():
        rows[name] = measure(partial(build, tiny=False), partial(build, tiny=True), device)
    return rows


def measure(
    full: Callable[[], Callable[[], object]], tiny: Callable[[], Callable[[], object]], device: str
) -> tuple[int, float]:
    """Launches of what `full` builds on (fake) CUDA tensors, and host seconds of what `tiny` builds, or of
    the former on a GPU.

    Each is called once before, so what only a first call does is left out."""
    if device == "cuda":
        return _profiled(full())
    with FakeTensorMode(allow_non_fake_inputs=True):
        call = full()
        call()
        with LaunchCount() as count:
            call()
    call = tiny()
    call()
    return count.launches, statistics.median(_seconds(call) for _ in range(REPEATS))


class LaunchCount(TorchDispatchMode):
    """Counts the operations that a GPU would have to launch a kernel or a copy for."""

    launches = 0

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        result = operation(*arguments, **(named or {}))
        name = operation.overloadpacket.__name__
        if name.startswith("_foreach"):
            self.launches += _multi_tensor_launches(name, arguments)
        elif operation.namespace == "aten" and name not in ALLOCATIONS and not operation.is_view:
            self.launches += 1
        return result


def _multi_tensor_launches(name: str, arguments: tuple[Any, ...]) -> int:
    lists = [argument for argument in arguments if isinstance(argument, list | tuple)]
    lists = [tensors for tensors in lists if tensors and isinstance(tensors[0], Tensor)]
    first = lists[0]
    if any(a.shape != b.shape for others in lists[1:] for a, b in zip(first, others, strict=True)):
        return len(first)  # torch treats such lists one tensor after another
    blocks = sum(math.ceil(tensor.numel() / ELEMENTS_OF_A_BLOCK) for tensor in first)
    writes = len(lists) + (not name.endswith("_"))
    most = max(len(first) / TENSORS_OF_A_KERNEL[writes], blocks / BLOCKS_OF_A_KERNEL)
    return math.ceil(most) + (name == "_foreach_norm")  # whose partial sums another kernel adds


def _profiled(call: Callable[[], object]) -> tuple[int, float]:
    call()
    torch.cuda.synchronize()
    activity = torch.profiler.ProfilerActivity.CUDA
    with torch.profiler.profile(activities=[activity]) as profile:
        call()
        torch.cuda.synchronize()
    kernels = [e for e in profile.events() or [] if e.device_type == torch.autograd.DeviceType.CUDA]
    return len(kernels), statistics.median(_seconds(call) for _ in range(REPEATS))


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _of_8_pixels(views: Recipe) -> Recipe:
    return replace(views, views=tuple(replace(view, size=8) for view in views.views))


def _batch(views: Recipe, count: int, device: str) -> ViewBatch:
    """Black crops on `device` and the recipe's random numbers."""
    crops = [
        torch.zeros(count, 3, view.size, view.size, dtype=torch.uint8, device=device) for view in views.views
    ]
    params = sample_params(views, 0, 0, np.arange(count), np.full((count, 2), 256)).augmentation
    return ViewBatch(crops, params, torch.arange(count), [])


def _network(device: str, *, tiny: bool) -> nn.Module:
    """A ResNet-50, or as many tensors of eight values; with gradients."""
    with torch.device("meta"):
        shapes = [parameter.shape for parameter in build_backbone("resnet50").parameters()]
    network = nn.Module()
    for number, shape in enumerate(shapes):
        small = (2, 4) if len(shape) > 1 else (8,)
        value = torch.ones(small if tiny else shape, device=device)
        network.register_parameter(f"p{number}", nn.Parameter(value))
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    return network


def _painter(views: Recipe, batch: int, device: str, kind: Painting) -> Callable[[], object]:
    made = _batch(views, batch, device)
    return lambda: augment_batch(made, views, device, channels_last=True, painting=kind)


def _one_by_one(name: Literal["lars", "larc"], *, tiny: bool) -> Callable[[], object]:
    """The baseline of an update: its formulas for one tensor after another, as optim/lars.py states them."""
    network = _network("cpu" if tiny else "cuda", tiny=tiny)
    momenta = [torch.zeros_like(weight) for weight in network.parameters()]
    decay, trust, momentum, lr = 1e-4, 1e-3, 0.9, 0.1

    @torch.no_grad()
    def step() -> None:
        for weight, moved in zip(network.parameters(), momenta, strict=True):
            assert weight.grad is not None
            update = weight.grad.add(weight, alpha=decay)
            if name == "larc" or weight.ndim > 1:  # LARS leaves biases and batch norms out
                w_norm = weight.norm()
                g_norm = update.norm() if name == "lars" else weight.grad.norm()
                below = g_norm if name == "lars" else g_norm + decay * w_norm + 1e-8
                update.mul_(torch.where((w_norm > 0) & (g_norm > 0), trust * w_norm / below, 1.0))
            moved.mul_(momentum).add_(update)
            weight.add_(moved, alpha=-lr)

    return step


def _clipping_one_by_one(*, tiny: bool) -> Callable[[], object]:
    network = _network("cpu" if tiny else "cuda", tiny=tiny)

    def clip() -> None:
        for weight in network.parameters():
            assert weight.grad is not None
            weight.grad.mul_((3.0 / (weight.grad.norm() + 1e-6)).clamp(max=1))

    return clip


def _optimizer(name: Literal["sgd", "lars", "larc"], *, tiny: bool) -> Callable[[], object]:
    network = _network("cpu" if tiny else "cuda", tiny=tiny)
    config = OptimConfig(name=name)
    return build_optimizer(config, [ParameterGroup("all", list(network.parameters()))]).step


def _clipping(*, tiny: bool) -> Callable[[], object]:
    network = _network("cpu" if tiny else "cuda", tiny=tiny)
    return lambda: clip_each(network.parameters(), 3.0)


def _moving_average(*, tiny: bool) -> Callable[[], object]:
    network = _network("cpu" if tiny else "cuda", tiny=tiny)
    return partial(move, momentum_copy(network), network, 0.99)


UPDATES: dict[str, Callable[..., Callable[[], object]]] = {
    "lars step, tensor by tensor": partial(_one_by_one, "lars"),
    "lars step": partial(_optimizer, "lars"),
    "larc step, tensor by tensor": partial(_one_by_one, "larc"),
    "larc step": partial(_optimizer, "larc"),
    "clipping, tensor by tensor": _clipping_one_by_one,
    "clipping of each gradient": _clipping,
    "moving average": _moving_average,
}


if __name__ == "__main__":
    main()
