"""Pretrains a backbone without labels, from images to a checkpoint.

    siamtransfer pretrain                                          the demo: SimSiam on the embedded scenes
    siamtransfer pretrain --config imagenet-resnet50-100ep --data.root /data/imagenet
    siamtransfer pretrain --config own-folder --data.root my_images
    torchrun --nproc-per-node 8 pretrain/main.py --config …        one process a GPU
    siamtransfer pretrain … --resume                               go on after a stop, a crash or a kill
    siamtransfer pretrain … --preview views.png                    look at the views before training

This file holds the command line. The story of a run is siamtransfer/pretraining/loop.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from siamtransfer.cli import Command, run
from siamtransfer.config import PretrainConfig


@dataclass
class PretrainOptions(PretrainConfig):
    """A run's configuration, and what to do with it."""

    resume: bool = False
    """Go on from the newest valid checkpoint of run.dir."""
    preview: str | None = None
    """Write a grid of views as PNG to this path and end."""


def work(options: PretrainOptions) -> dict[str, Any] | None:
    """A preview of the views, or a whole run; returns the record on rank 0."""
    options.check()
    from siamtransfer.distributed.runtime import StopSignal, start_runtime
    from siamtransfer.pretraining.images import preview
    from siamtransfer.pretraining.loop import pretrain

    if options.preview:
        return preview(options, Path(options.preview))
    hardware = options.hardware
    with (
        start_runtime(hardware.device, hardware.precision, hardware.threads) as runtime,
        StopSignal() as stop,
    ):
        return pretrain(options, runtime, stop, resume=options.resume)


main = Command(
    "pretrain", PretrainOptions, work, __doc__, kinds=("pretrain", "experiments"), default_config="demo"
)

if __name__ == "__main__":
    run(main)
