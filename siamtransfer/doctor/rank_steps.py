"""Three steps of narrow SimSiam in float64, on one rank or as one of several; `python -m` prints them."""

from __future__ import annotations

import datetime as dt
import json
import os
import time
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor

from siamtransfer.backbones.architecture import build_backbone
from siamtransfer.distributed.runtime import Runtime, has_native_bfloat16
from siamtransfer.doctor.workbench import narrow_simsiam, tf32
from siamtransfer.methods import SimSiam, SimSiamConfig, StepInfo
from siamtransfer.optim.config import OptimConfig
from siamtransfer.optim.optimizers import build_optimizer
from siamtransfer.training.guard import StepContext
from siamtransfer.training.step import Updater, train_step

BatchNormKind = Literal["torch", "single-exchange"]
STEPS, IMAGES = 3, 16
WARM, TIMED = 5, 12
TIMEOUT = dt.timedelta(seconds=60)


def losses_of(runtime: Runtime, kind: BatchNormKind = "torch") -> list[float]:
    """The mean loss over ranks of each step, on this rank's share of the images."""
    method = narrow_simsiam().double()
    views = torch.randn(2, IMAGES, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()
    share = [view.chunk(runtime.world_size)[runtime.rank].to(runtime.device) for view in views]
    updater = _updater(method, runtime, kind)
    with tf32(False):
        return [_step(updater, share, number) for number in range(STEPS)]


def seconds_of(runtime: Runtime, kind: BatchNormKind) -> float:
    """The mean time of a step of SimSiam with ResNet-50 on 64 images a GPU."""
    torch.manual_seed(0)
    method = SimSiam(build_backbone("resnet50", zero_init_residual=True), SimSiamConfig())
    views = list(torch.randn(2, 64, 3, 224, 224, device=runtime.device))
    views = [view.contiguous(memory_format=torch.channels_last) for view in views]
    updater = _updater(method, runtime, kind)
    begin = 0.0
    with tf32(True):
        for number in range(WARM + TIMED):
            if number == WARM:
                torch.cuda.synchronize(runtime.device)
                begin = time.perf_counter()
            _step(updater, views, number)
        torch.cuda.synchronize(runtime.device)
    return (time.perf_counter() - begin) / TIMED


def _updater(method: SimSiam, runtime: Runtime, kind: BatchNormKind) -> Updater:
    method.to(memory_format=torch.channels_last)
    model = runtime.distribute(method, kind=kind)
    optimizer = build_optimizer(OptimConfig(batch_size=256), method.groups())
    return Updater(model, optimizer, runtime.scaler(), runtime)


def _step(updater: Updater, views: list[Tensor], number: int) -> float:
    context = StepContext(number, 0.1, torch.arange(len(views[0])))
    return train_step(updater, views, context, StepInfo(number, 100, 10))[1].loss


def main() -> None:
    """One rank of several; the device, the backend and the kind of batch norm come from the environment (see
    several_ranks.py)."""
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    device = torch.device(os.environ["DOCTOR_DEVICE"])
    kind: BatchNormKind = "torch" if os.environ["DOCTOR_BATCH_NORM"] == "torch" else "single-exchange"
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(os.environ["DOCTOR_BACKEND"], timeout=TIMEOUT)
    try:
        found: dict[str, list[float] | float] = {
            "losses": losses_of(Runtime(device, torch.float32, rank, world_size, world_size), kind)
        }
        if os.environ["DOCTOR_BACKEND"] == "nccl":
            dtype = torch.bfloat16 if has_native_bfloat16() else torch.float16
            found["seconds"] = seconds_of(Runtime(device, dtype, rank, world_size, world_size), kind)
    finally:
        dist.destroy_process_group()
    if rank == 0:
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
