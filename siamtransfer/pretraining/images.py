"""The images of a pretraining run, and the loader that makes batches of views of them."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from siamtransfer.config import DataConfig, HardwareConfig, PretrainConfig
from siamtransfer.data import ImageSet, open_images
from siamtransfer.data.imageset import channels_of
from siamtransfer.data.pixel_form import OPTIONS as FORM_OPTIONS
from siamtransfer.data.recorded_form import form_as_recorded
from siamtransfer.data.registry import NAMED, PAIR_OPTIONS
from siamtransfer.data.report.overview import say_overview
from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime, cpu_count
from siamtransfer.optim.config import OptimConfig
from siamtransfer.pretraining.auto import say_chosen, settle_from, settle_source, settle_values
from siamtransfer.pretraining.normalisation import measure_normalisation, saved_normalisation
from siamtransfer.pretraining.pairs import check_pairs, recipe_of_columns, view_set
from siamtransfer.pretraining.schedule import Schedule
from siamtransfer.pretraining.state import TrainState
from siamtransfer.records.record import record
from siamtransfer.utils.captions import short_name
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say
from siamtransfer.views.channels import channel_remark, recipe_for
from siamtransfer.views.dataset import ViewBatch
from siamtransfer.views.loading import build_loader
from siamtransfer.views.pairs import pair_views
from siamtransfer.views.prefetch import Prefetcher, side_stream
from siamtransfer.views.preview import write_preview
from siamtransfer.views.sampler import StepSampler
from siamtransfer.views.shared_memory import affordable_prefetch
from siamtransfer.views.view_spec import Recipe


def open_training_images(data: DataConfig, saved: dict[str, Any] | None = None) -> ImageSet:
    """The images to learn from; ranks download one after the other. Labels, where the set has some, are for
    methods whose options use them.

    What `data` leaves open of the form of the pixels is that of the checkpoint `saved`, or that of the set.
    It is written into `data`, so that the run's checkpoints say it.
    """
    if saved is not None:
        for key, value in form_as_recorded(saved["config"]["data"], data.name).items():
            if getattr(data, key) is None:
                setattr(data, key, value)
    with collectives.rank_by_rank("opening the images", needed=data.download):
        images = open_images(data.name, split=data.split, **image_options(data))
    form = getattr(images, "form", None)
    if form is not None:
        for key, value in form.as_options().items():
            if key in NAMED[data.name].takes:
                setattr(data, key, value)
    with collectives.own_pace("looking at the images"):
        if collectives.rank() == 0:
            say_overview(images)
    return images


def open_chosen_images(
    config: PretrainConfig, device: torch.device, saved: dict[str, Any] | None = None
) -> tuple[ImageSet, dict[str, str]]:
    """`open_training_images`, on the way to which what `config` leaves `auto` is decided, said and set: as in
    the checkpoint `saved`, or for these images on this device. Also the reason of each choice by its key.

    Raises:
        UserError: there are no images, or too few.
    """
    settle_from(saved, config)
    source = settle_source(config)
    chosen = {} if source is None else {"data.name": source}
    say_chosen(chosen)
    images = open_training_images(config.data, saved)
    values = settle_values(config, images, device)
    say_chosen(values)
    check_pairs(config, images)
    return images, {key: choice.reason for key, choice in (chosen | values).items()}


def image_options(data: DataConfig) -> dict[str, Any]:
    """The arguments of `open_images` that hold for every split."""
    keys = ("root", "download", "list_file", "parts", "size", "count", "frames_gap")
    return {key: getattr(data, key) for key in (*keys, *PAIR_OPTIONS, *FORM_OPTIONS)}


def build_recipe(config: PretrainConfig, images: ImageSet, saved: dict[str, Any] | None = None) -> Recipe:
    """The views of a run, for the channels of its images. Mean and std are those of the configuration, of the
    recipe for images of three channels, of the checkpoint `saved`, or measured by rank 0, in this order.

    Raises:
        UserError: the configuration does not suit the channels, or a channel has one value only.
    """
    views, rgb, channels = config.views, config.data.rgb, channels_of(images)
    normalisation = None
    if channels != 3 and views.mean is None and views.std is None:
        normalisation = saved_normalisation(saved, channels) or measure_normalisation(images)
    recipe = recipe_for(views, channels, rgb, normalisation)
    remark = channel_remark(views, recipe)
    if remark and collectives.rank() == 0:
        say(f"remark: {remark}")
    if recipe.mix is not None:
        refuse_odd_micro_batches(config.optim, collectives.world_size())
    return recipe_of_columns(views, images, recipe, saved)


def refuse_odd_micro_batches(optim: OptimConfig, world_size: int) -> None:
    """Raises UserError where images that are mixed in pairs would be parted."""
    rows, rest = divmod(optim.batch_size, world_size * optim.grad_accum_steps)
    if rest == 0 and rows % 2:
        raise UserError(
            f"views.mix mixes images in pairs, and optim.batch_size {optim.batch_size} is {rows} on each of "
            f"{world_size} rank(s) in each of {optim.grad_accum_steps} micro-batch(es): choose a batch size "
            "that gives an even number"
        )


def build_training_loader(state: TrainState, schedule: Schedule, runtime: Runtime) -> DataLoader[ViewBatch]:
    """This rank's batches of cropped views from step `state.step` to the last one."""
    config, images = state.config, state.images
    sampler = StepSampler(
        len(images),
        config.optim.batch_size,
        schedule.steps,
        seed=config.run.seed,
        start=state.step,
        rank=runtime.rank,
        world_size=runtime.world_size,
    )
    workers = count_workers(config.data, images, runtime)
    sides = [view.size for view in state.recipe.views]
    share = -(-config.optim.batch_size // runtime.world_size)
    return build_loader(
        view_set(images, state.recipe, config),
        sampler,
        workers=workers,
        pin_memory=runtime.device.type == "cuda",
        prefetch=affordable_prefetch(sides, share, workers, runtime.local_world_size, state.recipe.channels),
    )


def paint_batches(
    batches: Iterable[ViewBatch], hardware: HardwareConfig, recipe: Recipe, runtime: Runtime
) -> Prefetcher:
    """`batches` with their views on the device, painted as `hardware.augment` and `hardware.prefetch` say."""
    device = runtime.device
    paint = partial(pair_views, recipe=recipe, device=device, channels_last=True, painting=hardware.augment)
    return Prefetcher(batches, paint, side_stream(device) if hardware.prefetch else None)


def count_workers(data: DataConfig, images: ImageSet, runtime: Runtime) -> int:
    """Worker processes of a rank: `data.workers`, or as many as a GPU needs; on the CPU half of the
    processors, and none for images in memory."""
    if data.workers is not None:
        return data.workers
    processors = max(1, cpu_count() // runtime.local_world_size)
    if runtime.device.type == "cpu":
        return 0 if images.image_size is not None else max(1, processors // 2)
    return min(8, processors)


def preview(config: PretrainConfig, path: Path) -> dict[str, Any]:
    """Writes a grid of views as the run would see them; returns a record."""
    config = copy.deepcopy(config)  # what is auto is filled in here
    on_gpu = config.hardware.device != "cpu" and torch.cuda.is_available()
    images, _ = open_chosen_images(config, torch.device("cuda" if on_gpu else "cpu"))
    recipe = build_recipe(config, images)
    views = view_set(images, recipe, config)
    failures = write_preview(path, views, name=lambda index: short_name(images.describe(index)))
    for where, why in failures:
        say(f"replaced an unreadable image: {where} ({why})")
    say(f"wrote {path}: each row is an image and its views by the recipe {recipe.name}")
    for line in recipe.describe():
        say(line)
    protocol = {"recipe": recipe.name, "views": recipe.describe()}
    return record("preview", {"unreadable": len(failures)}, protocol, picture=str(path))
