"""Fills in what a configuration leaves `auto`, and says it.

First comes the kind of set that the images are, then, when they are open, the values of chosen_values.py.
Rank 0 decides for all.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from siamtransfer.config import PretrainConfig
from siamtransfer.data import ImageSet, UnreadableImage
from siamtransfer.data.listing import has_image_ending
from siamtransfer.data.sources import kind_of_files
from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import cpu_count
from siamtransfer.methods.registry import current_names
from siamtransfer.pretraining.chosen_values import Chosen, Facts, choose_values
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say
from siamtransfer.utils.strict_json import flatten
from siamtransfer.utils.text import printable

SAMPLED = 24  # images whose sizes are looked at; a photograph takes a tenth of a second
NAME = "data.name"


def settle_from(saved: dict[str, Any] | None, config: PretrainConfig) -> None:
    """Takes what is undecided from the configuration of the checkpoint `saved`, of any version, so that a run
    that goes on is the same whatever has been added to the machine. What an old one lacks stays undecided."""
    if saved is None or not config.undecided:
        return
    values = flatten(current_names(saved["config"]))
    config.decide({key: values[key] for key in config.undecided if key in values})
    _name_list(config)


def settle_source(config: PretrainConfig) -> Chosen | None:
    """Decides data.name by what data.root or data.list_file is; None where it is stated.

    Raises:
        UserError: neither is given, there is nothing, or it is a single image.
    """
    if NAME not in config.undecided:
        return None
    with collectives.own_pace("looking at the images"):
        found = _kind_of_source(config) if collectives.rank() == 0 else None
    chosen = collectives.broadcast_object(found)
    assert chosen is not None
    config.decide({NAME: chosen.value})
    _name_list(config)
    return chosen


def settle_values(config: PretrainConfig, images: ImageSet, device: torch.device) -> dict[str, Chosen]:
    """Decides all other keys for these images on this device.

    Raises:
        UserError: there are too few images, or the configuration with the chosen values is refused.
    """
    if not config.undecided:
        return {}
    with collectives.own_pace("choosing what is auto"):
        facts = find_facts(images, device) if collectives.rank() == 0 else None
    facts = collectives.broadcast_object(facts)
    assert facts is not None
    chosen = choose_values(config, facts)
    config.check()
    return chosen


def say_chosen(chosen: dict[str, Chosen]) -> None:
    """A line for each value on rank 0."""
    if collectives.rank() != 0:
        return
    for key, (value, reason) in chosen.items():
        say(f"chosen: {key} {'null' if value is None else value}, because {reason}")


def find_facts(images: ImageSet, device: torch.device) -> Facts:
    """What values are chosen from: the images and the machine of this process."""
    on_gpu = device.type == "cuda"
    memory = torch.cuda.get_device_properties(device).total_memory / 2**30 if on_gpu else 0.0
    ranks = collectives.world_size()
    cores = max(1, cpu_count() // ranks)
    side, reading = look_at_sample(images)
    return Facts(len(images), side, device.type, memory, cores, ranks, reading)


def look_at_sample(images: ImageSet) -> tuple[int, float]:
    """The median length in pixels of the shorter side of SAMPLED images, spread evenly, and the mean time in
    seconds in which a processor reads and decodes one (see `rounded_time`): other programs that are at work
    do not count, and images in memory take none. 224 and 0 where none of them can be read."""
    if images.image_size is not None:
        return images.image_size, 0.0
    sides, seconds = [], 0.0
    for index in np.unique(np.linspace(0, len(images) - 1, SAMPLED).round().astype(int)).tolist():
        began = time.thread_time()
        try:
            sides.append(min(images.image(index).shape[:2]))
        except UnreadableImage:
            continue
        seconds += time.thread_time() - began
    return (int(np.median(sides)), rounded_time(seconds / len(sides))) if sides else (224, 0.0)


def rounded_time(seconds: float) -> float:
    """The nearest power of two: a second measurement on the same machine hardly ever gives another."""
    return 2.0 ** round(math.log2(seconds)) if seconds > 0 else 0.0


def _name_list(config: PretrainConfig) -> None:
    """Takes data.root for the list where the set is one and no other file is named."""
    data = config.data
    if data.name == "list" and data.list_file is None:
        data.root, data.list_file = None, data.root


def _kind_of_source(config: PretrainConfig) -> Chosen:
    data = config.data
    if data.list_file is not None:
        return Chosen("list", f"{printable(data.list_file)} is a text file of paths")
    if data.root is None:
        raise UserError("no images are named: give their folder with --data.root")
    path = Path(data.root).expanduser()
    shown = printable(data.root)
    kind = kind_of_files(path)
    if kind is None:
        raise UserError(
            f"{shown} is a single file: give a folder of images with --data.root"
            if path.exists()
            else f"data.root: {shown} does not exist; give the folder of the images"
        )
    if kind == "folder" and any(has_image_ending(entry.name) for entry in path.iterdir()):
        return Chosen("flat", f"{shown} holds images beside its folders, so the folders are no classes")
    reasons = {
        "folder": f"{shown} holds folders, whose names are classes for the kNN check; training sees no label",
        "flat": f"{shown} holds no folders, so there are no labels",
        "list": f"{shown} is a text file of paths",
    }
    return Chosen(kind, reasons.get(kind, f"of the files that {shown} holds"))
