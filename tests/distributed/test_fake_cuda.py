"""The training step on fake CUDA tensors (shapes and devices, no numbers), and on a GPU where there is one.

What the fakes show without a GPU: every tensor of painting, forward pass and loss is on the device, and
nothing in them asks the device for a value, which would make it wait. What they cannot show: the backward
pass (autograd wants a real device and raises), autocast (torch switches it off where it sees no GPU), speed
and numbers; these are left to the tests marked `gpu`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_runs import TINY, all_finite, newest, rows
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from siamtransfer.backbones.architecture import build_backbone
from siamtransfer.data import open_images
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.methods import SimSiam, SimSiamConfig
from siamtransfer.metrics import spread
from siamtransfer.optim.config import OptimConfig
from siamtransfer.optim.optimizers import build_optimizer
from siamtransfer.programs.pretrain import main
from siamtransfer.training.guard import step_report
from siamtransfer.training.step import forward_backward
from siamtransfer.views.dataset import ViewBatch, ViewSet, augment_batch
from siamtransfer.views.recipes import recipe
from siamtransfer.views.view_spec import Recipe

CUDA = torch.device("cuda")
RECIPES = [
    "simsiam",
    "moco-v1",
    "byol",
    "cifar-simsiam",
]  # with blur, with grey first, with solarize, with neither
SIZE, BATCH = 48, 12


class Watch(TorchDispatchMode):
    """Notes each operation with the devices of its results."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[str, set[str]]] = []

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        self.operations.append((str(operation), set()))
        results = operation(*arguments, **(named or {}))
        for tensor in results if isinstance(results, list | tuple) else [results]:
            if isinstance(tensor, Tensor):
                self.operations[-1][1].add(tensor.device.type)
        return results

    def on_cpu(self) -> set[str]:
        """The operations that gave a tensor on the CPU."""
        return {name for name, devices in self.operations if "cpu" in devices}


@contextmanager
def fake_gpu() -> Iterator[FakeTensorMode]:
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        yield mode


def batch_of(views: Recipe) -> ViewBatch:
    images = open_images("fashion-scenes", size=SIZE, count=BATCH)
    reader = ViewSet(lambda index: (images.image(index), []), views, 0, BATCH)
    return reader.__getitems__([(0, index) for index in range(BATCH)])


def build_there(name: str) -> tuple[SimSiam, list[Tensor]]:
    """SimSiam and two views on the fake device; inside `fake_gpu`."""
    with CUDA:
        method = SimSiam(build_backbone(name, zero_init_residual=True), SimSiamConfig())
        views = [
            torch.empty(BATCH, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last) for _ in range(2)
        ]
    return method, views


@pytest.mark.parametrize("name", RECIPES)
def test_painting_stays_on_the_device_and_asks_it_for_nothing(name: str) -> None:
    views = recipe(name, size=SIZE)
    batch = batch_of(views)
    with fake_gpu() as mode:
        fake = replace(batch, crops=[mode.from_tensor(crops) for crops in batch.crops])
        with Watch() as watch:
            painted = augment_batch(fake, views, CUDA, channels_last=True)
    for view in painted:
        assert (view.device.type, view.dtype, view.shape) == ("cuda", torch.float32, (BATCH, 3, SIZE, SIZE))
        assert view.is_contiguous(memory_format=torch.channels_last)
    assert watch.on_cpu() <= UPLOADS
    assert len(watch.operations) > 50


UPLOADS = {"aten.lift_fresh.default", "aten.detach.default"}
"""What wraps the drawn numbers as tensors before they are copied to the device."""


@pytest.mark.parametrize(("name", "width"), [("resnet18", 512), ("resnet50", 2048)])
def test_forward_pass_and_loss_stay_on_the_device(name: str, width: int) -> None:
    with fake_gpu():
        method, views = build_there(name)
        with Watch() as watch:
            features, out = method.backbone(views[0]), method(views)
    assert features.shape == (BATCH, width)
    assert (out.loss.device.type, out.loss.shape, out.loss.requires_grad) == ("cuda", (), True)
    for z in out.projections:
        assert (z.device.type, z.shape, z.requires_grad) == ("cuda", (BATCH, 2048), False)
    assert watch.on_cpu() == set()


@pytest.mark.parametrize(
    "measure",
    [spread.output_std, spread.centre_norm, spread.effective_rank],
    ids=lambda f: f.__name__,
)
def test_monitors_compute_on_the_device_and_fetch_one_number(measure: Any) -> None:
    with fake_gpu():
        z = torch.empty(BATCH, 64, device=CUDA)
        with Watch() as watch, pytest.raises(DataDependentOutputException):
            measure(z)
    assert watch.operations[-1] == ("aten._local_scalar_dense.default", set())
    assert watch.on_cpu() == set()


def test_the_guard_fetches_what_it_needs_at_once() -> None:
    with fake_gpu():
        method, views = build_there("resnet18")
        out = method(views)
        for parameter in method.parameters():
            parameter.grad = torch.empty_like(parameter)
        with Watch() as watch, pytest.raises(DataDependentOutputException):
            step_report(out.loss, method.parameters(), None, Runtime(CUDA, torch.float32))
    first = next(i for i, (_, devices) in enumerate(watch.operations) if "cpu" in devices)
    assert watch.operations[first] == ("aten._to_copy.default", {"cpu"})
    assert not any("cuda" in devices for _, devices in watch.operations[first:])
    assert watch.operations[-1] == ("aten._local_scalar_dense.default", set())


def test_the_backward_pass_is_where_the_fakes_end() -> None:
    """If this one fails, torch has learnt it: the tests above can then go on to the gradients."""
    if torch.cuda.is_available():
        pytest.skip("with a real GPU the fakes go further")
    with fake_gpu():
        method, views = build_there("resnet18")
        with pytest.raises(RuntimeError):
            method(views).loss.backward()


# On a real GPU.


@pytest.mark.gpu
@pytest.mark.parametrize("name", RECIPES)
def test_painting_on_a_gpu_equals_painting_on_the_cpu(name: str) -> None:
    views = recipe(name, size=SIZE)
    batch = batch_of(views)
    tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        there = augment_batch(batch, views, CUDA, channels_last=True)
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = tf32
    for ours, expected in zip(there, augment_batch(batch, views, "cpu"), strict=True):
        torch.testing.assert_close(ours.cpu(), expected, rtol=0, atol=2e-3, check_stride=False)


@pytest.mark.gpu
def test_a_step_on_a_gpu_equals_one_on_the_cpu() -> None:
    views = list(torch.randn(2, BATCH, 3, 32, 32, dtype=torch.float64))
    found = []
    for device in (torch.device("cpu"), CUDA):
        torch.manual_seed(0)
        method = (
            SimSiam(build_backbone("resnet18", width=8, stem="small"), SimSiamConfig(dim=32))
            .double()
            .to(device)
        )
        runtime = Runtime(device, torch.float32)
        optimizer = build_optimizer(OptimConfig(batch_size=256), method.groups())
        loss, _ = forward_backward(method, [view.to(device) for view in views], 1, runtime, runtime.scaler())
        optimizer.step()
        found.append((loss.cpu(), {name: tensor.cpu() for name, tensor in method.state_dict().items()}))
    torch.testing.assert_close(found[0], found[1], rtol=1e-8, atol=1e-8)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_run_on_a_gpu_learns_in_every_precision_and_goes_on(precision: str, tmp_path: Path) -> None:
    options = [*TINY, "--hardware.device=cuda", f"--hardware.precision={precision}", "--data.workers=2"]
    record = main([*options, f"--run.dir={tmp_path / 'run'}"])
    assert record is not None
    assert all_finite(newest(tmp_path / "run")["model"])
    assert [row["step"] for row in rows(tmp_path / "run") if "loss" in row] == list(range(1, 16))
    assert main([*options, f"--run.dir={tmp_path / 'run'}", "--resume"]) is not None
