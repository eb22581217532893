"""What checks work with: the device, sizes, clocks, made images and small networks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from siamtransfer.backbones.architecture import build_backbone
from siamtransfer.distributed.runtime import Runtime, has_native_bfloat16
from siamtransfer.doctor.config import DoctorConfig
from siamtransfer.methods import SimSiam, SimSiamConfig
from siamtransfer.utils.errors import UserError
from siamtransfer.views.dataset import ViewBatch
from siamtransfer.views.random_params import sample_params
from siamtransfer.views.recipes import recipe
from siamtransfer.views.view_spec import Recipe

GIB = 2**30
PHOTOGRAPH = (375, 500)  # the usual size of an ImageNet file, [H, W]


@dataclass
class Workbench:
    """Attributes:
    tiny: whether checks take tiny sizes, with --cpu.
    """

    config: DoctorConfig
    device: torch.device
    tiny: bool

    @property
    def half(self) -> torch.dtype:
        """The dtype of `precision: auto`; float32 on the CPU."""
        if self.device.type == "cpu":
            return torch.float32
        return torch.bfloat16 if has_native_bfloat16() else torch.float16

    def runtime(self, dtype: torch.dtype | None = None) -> Runtime:
        """One rank on the device, in `dtype` (None: `half`)."""
        return Runtime(self.device, dtype or self.half)

    def wait(self) -> None:
        """Returns when the device has nothing left to do."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, work: Callable[[], object], repeats: int, warm: int = 3) -> float:
        """The mean time of `work`, after `warm` calls that do not count."""
        repeats, warm = (2, 1) if self.tiny else (repeats, warm)
        for _ in range(warm):
            work()
        self.wait()
        begin = time.perf_counter()
        for _ in range(repeats):
            work()
        self.wait()
        return (time.perf_counter() - begin) / repeats

    def peak(self, work: Callable[[], object]) -> float:
        """GiB of device memory that `work` takes beyond what is there; 0 on the CPU, where it is not
        counted."""
        if self.device.type == "cpu":
            work()
            return 0.0
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        work()
        self.wait()
        return (torch.cuda.max_memory_allocated(self.device) - before) / GIB

    def clear(self) -> None:
        """Gives cached device memory back, between checks."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def batch(self, name: str, count: int) -> tuple[Recipe, ViewBatch]:
        """`count` made photographs as a worker would crop them by the recipe `name`: smooth, with noise."""
        views = recipe(name, size=32 if self.tiny else None)
        sizes = np.full((count, 2), PHOTOGRAPH)
        params = sample_params(views, 0, np.zeros(count, np.int64), np.arange(count), sizes)
        generator = torch.Generator().manual_seed(0)
        crops = []
        for view in views.views:
            low = torch.rand(count, 3, 7, 7, generator=generator)
            smooth = nn.functional.interpolate(low, size=(view.size, view.size), mode="bicubic")
            noise = 0.05 * torch.randn(smooth.shape, generator=generator)
            crops.append((smooth + noise).clamp(0, 1).mul(255).byte())
        batch = ViewBatch(crops, params.augmentation, torch.arange(count), [])
        return views, batch.pin_memory() if self.device.type == "cuda" else batch

    def images(self, count: int, size: int = 224) -> list[Tensor]:
        """Two views [count, 3, size, size] of noise on the device, channels last."""
        size = 32 if self.tiny else size
        generator = torch.Generator().manual_seed(1)
        views = torch.randn(2, count, 3, size, size, generator=generator)
        return [view.to(self.device).contiguous(memory_format=torch.channels_last) for view in views]

    def simsiam(self) -> SimSiam:
        """SimSiam with a ResNet-50 on the CPU, the same every time; a narrow ResNet-18 where `tiny`."""
        if self.tiny:
            return narrow_simsiam()
        torch.manual_seed(0)
        return SimSiam(build_backbone("resnet50", zero_init_residual=True), SimSiamConfig())


def narrow_simsiam() -> SimSiam:
    """SimSiam with a ResNet-18 of width 8 for images of 32 pixels, the same every time."""
    torch.manual_seed(0)
    return SimSiam(build_backbone("resnet18", width=8, stem="small"), SimSiamConfig(dim=32))


@contextlib.contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Switches TF32 for products and convolutions, until the end."""
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    products.allow_tf32 = convolutions.allow_tf32 = allowed
    try:
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before


@contextlib.contextmanager
def open_workbench(config: DoctorConfig) -> Iterator[Workbench]:
    """The workbench on the GPU with --gpu, else on the CPU; torch's settings return at the end.

    Raises:
        UserError: --gpu, and torch finds no GPU.
    """
    if config.gpu and not torch.cuda.is_available():
        raise UserError(
            "torch finds no GPU: siamtransfer doctor without --gpu says why, and --cpu runs the checks of "
            "--gpu at tiny size"
        )
    device = torch.device("cuda", 0) if config.gpu else torch.device("cpu")
    benchmark, state = torch.backends.cudnn.benchmark, torch.get_rng_state()
    torch.backends.cudnn.benchmark = config.gpu
    try:
        with tf32(torch.backends.cuda.matmul.allow_tf32):
            yield Workbench(config, device, tiny=not config.gpu)
    finally:
        torch.backends.cudnn.benchmark = benchmark
        torch.set_rng_state(state)
