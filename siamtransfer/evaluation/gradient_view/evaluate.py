"""The gradient view of one or several checkpoints: its indicators, their table, their curves."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from siamtransfer.data.readers import ReplacingReader, StrictReader
from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime, unwrap
from siamtransfer.evaluation.evaluator import join_metrics
from siamtransfer.evaluation.gradient_view.checkpoints import (
    RunCheckpoint,
    find_checkpoints,
    open_checkpoints,
    restore_method,
)
from siamtransfer.evaluation.gradient_view.config import GradientsConfig
from siamtransfer.evaluation.gradient_view.decomposition import average, decompose, indicators
from siamtransfer.evaluation.gradient_view.report import say_table, write_curves
from siamtransfer.evaluation.linear.augmented_images import local_part
from siamtransfer.evaluation.unreadable import NAMES_RECORDED
from siamtransfer.features.augmented import EPOCH
from siamtransfer.metering.meter import ImageClock
from siamtransfer.records.result import Picture, Result
from siamtransfer.utils.log import say
from siamtransfer.utils.text import first_few
from siamtransfer.views.dataset import ViewSet, augment_batch
from siamtransfer.views.loading import build_loader
from siamtransfer.views.sampler import epoch_order


def evaluate(config: GradientsConfig, runtime: Runtime) -> Result | None:
    """The indicators of every checkpoint under `gradient/NAME`; None on all ranks but the first.

    Raises:
        UserError: a file is not ours, its method has no gradient view, its images do not suffice, or closed
            form and autograd disagree.
    """
    checkpoints = open_checkpoints(find_checkpoints(config), config, runtime.world_size)
    numbers, replaced = [], set[tuple[str, str]]()
    for checkpoint in checkpoints:
        if runtime.is_main:
            say(f"{checkpoint.read.path}: {config.batches} batches of {checkpoint.batch_size} images")
        numbers.append(measure(checkpoint, config, runtime, replaced))
    unreadable = sorted(collectives.all_gather_object(sorted(replaced)))
    if not runtime.is_main:
        return None
    say_table(checkpoints, numbers)
    pictures = []
    if config.plot is not None:
        write = partial(write_curves, Path(config.plot), checkpoints, numbers)
        pictures.append(Picture(config.plot, "the indicators over training", write))
    protocol = {
        "batches": config.batches,
        "seed": config.seed,
        "precision": runtime.precision,
        "heads and loss": "float64",
        "batch norm": "statistics of the batch",
        "checkpoints": [checkpoint.protocol for checkpoint in checkpoints],
    }
    if config.data.unreadable == "skip":
        names = sorted({where for where, _ in unreadable})
        protocol["unreadable"] = {
            "rule": "replaced as in pretraining",
            "images": len(names),
            "names": names[:NAMES_RECORDED],
        }
        if names:
            named = first_few([f"{where} ({why})" for where, why in sorted(set(unreadable))])
            say(f"{len(names)} unreadable images were replaced as in pretraining: {named}")
    provenance = {"checkpoints": [checkpoint.provenance for checkpoint in checkpoints]}
    return Result("gradients", join_metrics(numbers), protocol, provenance, pictures=tuple(pictures))


def measure(
    checkpoint: RunCheckpoint, config: GradientsConfig, runtime: Runtime, replaced: set[tuple[str, str]]
) -> dict[str, float]:
    """The indicators of a checkpoint, averaged over the batches; the same on every rank. `replaced` gets name
    and fault of each image of this rank in whose place another was taken."""
    method = restore_method(checkpoint)
    torch.manual_seed(config.seed)
    synchronise = checkpoint.config["hardware"]["sync_batch_norm"]
    method = unwrap(runtime.distribute(method, synchronise_batch_norm=synchronise)).train()
    images, recipe, batch_size = checkpoint.images, checkpoint.recipe, checkpoint.batch_size
    reader = ReplacingReader if config.data.unreadable == "skip" else StrictReader
    order = epoch_order(len(images), config.seed, 0)
    local = local_part(batch_size, runtime)
    batches = [
        [(EPOCH, int(index)) for index in order[begin : begin + batch_size][local]]
        for begin in range(0, config.batches * batch_size, batch_size)
    ]
    loader = build_loader(
        ViewSet(reader(images), recipe, config.seed, len(images)),
        cast(Any, batches),
        workers=config.data.workers,
        pin_memory=runtime.device.type == "cuda",
    )
    numbers, clock = [], ImageClock()
    for batch in loader:
        replaced.update(batch.unreadable)
        views = augment_batch(batch, recipe, runtime.device, channels_last=True)
        numbers.append(indicators(decompose(method, views, runtime)))
        clock.count(len(batch))
    return average(numbers)
