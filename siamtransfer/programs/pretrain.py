"""Pretrains a backbone without labels, from images to a checkpoint.

    siamtransfer pretrain                                          the demo: SimSiam on the embedded scenes
    siamtransfer pretrain --config imagenet-resnet50-100ep --data.root /data/imagenet
    siamtransfer pretrain my_images                                your own images; the run chooses what suits
    torchrun --nproc-per-node 8 pretrain/main.py --config …        one process a GPU
    siamtransfer pretrain --resume runs/demo                       continue after a stop, a crash or a kill
    siamtransfer pretrain … --preview views.png                    look at the views before training

A run keeps its checkpoints, metrics and settings in --run.dir. It prints the accuracy of nearest neighbours
beside two baselines, and watches the projections for a collapse.
"""

# The story of a run is siamtransfer/pretraining/loop.py.

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from siamtransfer.cli import Command, run
from siamtransfer.cli.parser import Schema, words_by_key
from siamtransfer.config import PretrainConfig, read_saved_config
from siamtransfer.config.sections import DEMO, OWN_IMAGES, default_config
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import is_first_rank, say


@dataclass
class PretrainOptions(PretrainConfig):
    """A run's configuration, and what to do with it."""

    common: ClassVar[tuple[str, ...]] = (*PretrainConfig.common, "resume", "preview")
    positional: ClassVar[tuple[str, ...]] = ("images",)

    images: str | None = None
    """Folder of your images, an archive or a text file of paths; the same as --data.root."""
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
        tree["run"] = {**(tree.get("run") or {}), "dir": folder}
        return {str(Path(folder) / "config.json"): tree}

    @classmethod
    def choose_default(cls, words: Sequence[str], schema: Schema) -> str | None:
        """OWN_IMAGES where the words name images that are not embedded, and say it; else None."""
        found = words_by_key(words, schema)
        named = any(key in found for key in ("", "images", "data.root", "data.list_file"))
        name = next(reversed(found.get("data.name", [])), None)
        if default_config(name=name, named=named) == DEMO:
            return None
        if is_first_rank():
            say(f"the configuration is {OWN_IMAGES}, for images are named and no --config is")
        return OWN_IMAGES

    @classmethod
    def assemble(cls, values: Mapping[str, Any]) -> PretrainConfig:
        """The configuration of parsed values; `images` is its data.root."""
        config = super().assemble(values)
        assert isinstance(config, PretrainOptions)
        if config.images is not None:
            if values.get("data.root") not in (None, config.images):
                raise UserError(
                    f"the images are named twice, as {config.images} and by --data.root as "
                    f"{config.data.root}: leave one out"
                )
            config.data.root = config.images
        return config


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
    "pretrain", PretrainOptions, work, __doc__, kinds=("pretrain", "experiments"), default_config=DEMO
)

if __name__ == "__main__":
    run(main)
