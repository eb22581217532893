"""Pretrains a backbone without labels, from images to a checkpoint.

    siamtransfer pretrain                                          the demo: SimSiam on the embedded scenes
    siamtransfer pretrain --config imagenet-resnet50-100ep --data.root /data/imagenet
    siamtransfer pretrain --config own-folder --data.root my_images
    torchrun --nproc-per-node 8 pretrain/main.py --config …        one process a GPU
    siamtransfer pretrain --resume runs/demo                       continue after a stop, a crash or a kill
    siamtransfer pretrain … --preview views.png                    look at the views before training

This file holds the command line. The story of a run is siamtransfer/pretraining/loop.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from siamtransfer.cli import Command, run
from siamtransfer.config import PretrainConfig, read_saved_config


@dataclass
class PretrainOptions(PretrainConfig):
    """A run's configuration, and what to do with it."""

    common: ClassVar[tuple[str, ...]] = (*PretrainConfig.common, "resume", "preview")

    resume: bool | str = False
    """Continue from the newest valid checkpoint of run.dir; --resume FOLDER takes the run's configuration
    too, and needs no other word."""
    preview: str | None = None
    """Write a grid of views as PNG to this path, and stop."""

    @classmethod
    def base_trees(cls, words: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The configuration of the run that `--resume FOLDER` names."""
        folder = None
        for word, after in itertools.zip_longest(words, words[1:], fillvalue="--"):
            if word == "--resume" and not after.startswith("--"):
                folder = after
            elif word.startswith("--resume="):
                folder = word.partition("=")[2]
        if folder is None or folder.lower() in ("true", "false"):
            return {}
        tree = read_saved_config(Path(folder))
        tree["run"] = {**tree.get("run", {}), "dir": folder}
        return {str(Path(folder) / "config.json"): tree}


def work(options: PretrainOptions) -> dict[str, Any] | None:
    """A preview of the views, or a whole run; returns the record on rank 0."""
    options.check()
    from siamtransfer.distributed.runtime import start_runtime
    from siamtransfer.distributed.signals import StopSignal
    from siamtransfer.pretraining.images import preview
    from siamtransfer.pretraining.loop import pretrain

    if options.preview:
        return preview(options, Path(options.preview))
    hardware = options.hardware
    with (
        start_runtime(
            hardware.device, hardware.precision, hardware.threads, hardware.timeout_minutes
        ) as runtime,
        StopSignal() as stop,
    ):
        return pretrain(options, runtime, stop, resume=bool(options.resume))


main = Command(
    "pretrain", PretrainOptions, work, __doc__, kinds=("pretrain", "experiments"), default_config="demo"
)

if __name__ == "__main__":
    run(main)
