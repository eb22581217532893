"""Collectives and host reads of a SimSiam step with ResNet-50 on two CPU ranks, counted.

    python -m benchmarks.synchronisation [--guard step|device]

The counts do not depend on the size of the images (here 32 pixels) nor on the number of ranks; those of a GPU
are the same operations. A host read is an operation whose result the host waits for on a GPU. Beside them
stand the counts of torch's SyncBatchNorm, calculated from its source: a gather and three boolean masks a
layer forward, a sum backward. Prints a line for each and one JSON line.

Ends with status 1 when a batch norm makes more than one collective in a direction, or when the step has more
host reads than that of its report.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import multiprocessing
from torch.utils._python_dispatch import TorchDispatchMode

from siamtransfer.backbones.architecture import build_backbone
from siamtransfer.distributed.batchnorm import SyncedBatchNorm
from siamtransfer.distributed.runtime import start_runtime
from siamtransfer.methods import SimSiam, SimSiamConfig, StepInfo
from siamtransfer.records.record import record
from siamtransfer.training.device_guard import DeviceGuard
from siamtransfer.training.guard import StepContext
from siamtransfer.training.step import Updater, train_step
from siamtransfer.utils.log import say
from siamtransfer.utils.strict_json import to_json

WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "equal"}


class Counts(TorchDispatchMode):
    """Counts collectives by their names, and what the host waits for."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.collectives: Counter[str] = Counter()

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        space, name, *_ = str(operation).split(".")
        if space == "c10d":
            self.collectives[name.strip("_")] += 1
        masks = name == "index" and any(i is not None and i.dtype == torch.bool for i in arguments[1])
        self.reads += name in WAITS or masks
        return operation(*arguments, **(named or {}))


def count(rank: int, guard: str, folder: str) -> None:
    """The second step of one of two ranks; rank 0 writes its counts into `folder`."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    torch.manual_seed(0)
    with start_runtime("cpu", "float32", threads=1) as runtime:
        method = SimSiam(build_backbone("resnet50"), SimSiamConfig())
        model = runtime.distribute(method)
        optimizer = torch.optim.SGD(method.parameters(), lr=0.01, momentum=0.9)
        late = DeviceGuard(optimizer) if guard == "device" else None
        updater = Updater(model, optimizer, runtime.scaler(), runtime, late)
        calls: Counter[str] = Counter()
        for module in method.modules():
            if isinstance(module, SyncedBatchNorm):
                module.register_forward_hook(lambda *_: calls.update(["forward"]))
        for step in range(2):
            views = [torch.randn(4, 3, 32, 32) for _ in range(2)]
            calls.clear()
            with Counts() as counts:
                train_step(updater, views, StepContext(step, 0.01), StepInfo(step, 10, 5))
        if rank == 0:
            found = {"norms": calls["forward"], "host_reads": counts.reads, **counts.collectives}
            Path(folder, "counts.json").write_text(json.dumps(found))


def main() -> int:
    """Counts and prints; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--guard", choices=["step", "device"], default="step", help="as hardware.guard")
    arguments = parser.parse_args()
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(count, (arguments.guard, folder), nprocs=2)
        found = json.loads(Path(folder, "counts.json").read_text())
    norms, reads = found.pop("norms"), found.pop("host_reads")
    say(f"{norms} passes through batch norms a step; collectives of a step: {found}; host reads: {reads}")
    say(f"torch's SyncBatchNorm, by its source: {norms} gathers, {norms} sums, {3 * norms} host waits")
    metrics = {"norms": norms, "host_reads": reads, **found}
    print(to_json(record("benchmark/synchronisation", metrics, {"guard": arguments.guard})))
    gathers = found["allgather_base"]  # the sums of batch norms stand beside those of gradients
    return 0 if gathers == norms and found["allreduce"] < norms + 20 and reads <= 1 else 1


if __name__ == "__main__":
    sys.exit(main())
