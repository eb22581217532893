"""The cost of the training loop around the model: a step of ours against the bare forward, backward, update.

    python -m benchmarks.train_step [--steps 8] [--repeats 5] [--batch 64]

Both take the same steps with the same SimSiam (ResNet-18 for small images, 32 pixels, all threads). The bare
step gets ready float views. Ours augments them, sets learning rates and seeds, checks for non-finite numbers
before the update, and reads the loss. Repeats alternate; the ratio of the medians is printed, then one JSON
line.
Ends with status 1 when the ratio is above 1.05.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from siamtransfer.backbones.architecture import build_backbone
from siamtransfer.data import open_images
from siamtransfer.distributed.runtime import seed_step, start_runtime
from siamtransfer.methods import SimSiam, SimSiamConfig, StepInfo
from siamtransfer.optim.config import OptimConfig
from siamtransfer.optim.optimizers import build_optimizer, set_lr
from siamtransfer.records.record import record
from siamtransfer.training.guard import StepContext
from siamtransfer.training.step import Updater, train_step
from siamtransfer.utils.log import say
from siamtransfer.utils.strict_json import to_json
from siamtransfer.views.dataset import ViewSet, augment_batch
from siamtransfer.views.recipes import recipe

LIMIT = 1.05


def main() -> int:
    """Times both and prints the ratio; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=8, help="steps a repeat")
    parser.add_argument("--repeats", type=int, default=5, help="repeats of each")
    parser.add_argument("--batch", type=int, default=64, help="images a step")
    arguments = parser.parse_args()

    images = open_images("fashion-scenes", size=32, count=arguments.batch)
    views = recipe("cifar-simsiam")
    batch = ViewSet(lambda index: (images.image(index), []), views, 0, len(images)).__getitems__(
        [(0, index) for index in range(arguments.batch)]
    )
    config = OptimConfig(batch_size=arguments.batch, lr=0.01)

    with start_runtime("auto", "float32") as runtime:
        method = SimSiam(build_backbone("resnet18", stem="small"), SimSiamConfig(projector_layers=2))
        method.to(runtime.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer, scaler = build_optimizer(config, method.groups()), runtime.scaler()
        ready = augment_batch(batch, views, runtime.device, channels_last=True)

        updater = Updater(method, optimizer, scaler, runtime)

        def bare(step: int) -> None:
            method(ready).loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        def ours(step: int) -> None:
            lr = set_lr(optimizer, config, step, 100)
            seed_step(0, step)
            step_views = augment_batch(batch, views, runtime.device, channels_last=True)
            context, info = StepContext(step, lr, batch.index), StepInfo(step, 10_000, 100)
            train_step(updater, step_views, context, info)

        times: dict[str, list[float]] = {"bare": [], "ours": []}
        for _ in range(arguments.repeats):
            for name, step in (("bare", bare), ("ours", ours)):
                times[name].append(seconds_a_step(step, arguments.steps))
    medians = {name: statistics.median(values) for name, values in times.items()}
    pairs = [ours / bare for ours, bare in zip(times["ours"], times["bare"], strict=True)]
    ratio = medians["ours"] / medians["bare"]
    for name, value in medians.items():
        say(f"{name:6} {1000 * value:8.1f} ms a step   {arguments.batch / value:8.1f} images/s")
    say(f"ours / bare = {ratio:.3f} (pairs {min(pairs):.3f} to {max(pairs):.3f}), the limit is {LIMIT}")
    metrics = {"ratio": ratio, **{f"{name}_ms": 1000 * value for name, value in medians.items()}}
    protocol = {
        "batch": arguments.batch,
        "steps": arguments.steps,
        "repeats": arguments.repeats,
        "device": runtime.device.type,
    }
    print(to_json(record("benchmark/train_step", metrics, protocol, threads=torch.get_num_threads())))
    return 0 if ratio <= LIMIT else 1


def seconds_a_step(step: Callable[[int], None], steps: int) -> float:
    """The median time of a step, after one that is not counted."""
    spent = []
    for number in range(steps + 1):
        before = time.perf_counter()
        step(number)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        spent.append(time.perf_counter() - before)
    return float(np.median(spent[1:]))


if __name__ == "__main__":
    sys.exit(main())
