"""The invariance evaluator: how far the features of a backbone move when its images are transformed, beside
raw pixels and the untrained network."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from siamtransfer.data.imageset import channels_of
from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.frozen_model import FrozenModel, open_frozen_model
from siamtransfer.evaluation.invariance.config import InvarianceConfig
from siamtransfer.evaluation.invariance.examples import write_examples
from siamtransfer.evaluation.invariance.figure import write_curves
from siamtransfer.evaluation.invariance.follow import Vote, follow, read_crops
from siamtransfer.evaluation.invariance.numbers import (
    TASK,
    Group,
    Measured,
    all_metrics,
    groups_of,
    measure,
    sample_values,
)
from siamtransfer.evaluation.invariance.strengths import SCALES
from siamtransfer.evaluation.invariance.subjects import Parts, draw_parts, open_subjects
from siamtransfer.evaluation.invariance.table import say_table
from siamtransfer.evaluation.knn.evaluate import possible_ks
from siamtransfer.evaluation.remarks import add_remarks, remarks_on
from siamtransfer.records.result import Picture, Result
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say

RGB = 3


@dataclass(frozen=True)
class Invariance:
    """What was measured of a backbone.

    Attributes:
        measured: its numbers, then those of the baselines.
        groups: whose means are numbers.
        strengths: of each transformation that was measured.
        parts: the images.
        protocol: every choice that moves the numbers, beside those of images and features.
        remarks: on what makes the numbers say less, for the protocol.
    """

    measured: list[Measured]
    groups: list[Group]
    strengths: dict[str, tuple[float, ...]]
    parts: Parts
    protocol: dict[str, Any]
    remarks: list[str]

    @property
    def metrics(self) -> dict[str, float]:
        """The numbers by name."""
        return all_metrics(self.measured, self.groups)


def evaluate(config: InvarianceConfig, runtime: Runtime) -> Result | None:
    """Cosine, distance relative to that between classes, and kNN accuracy of every version; None on all ranks
    but the first.

    Raises:
        UserError: the images do not suit, or whatever reading checkpoint or images finds.
    """
    model = open_frozen_model(config.checkpoint, config, runtime)
    found = measure_invariance(model, config)
    model.require_untouched()
    with collectives.own_pace("fingerprinting the images"):
        provenance = model.provenance
    if found is None:
        return None
    say_table(found.measured, found.strengths)
    pictures = []
    if config.figure is not None:
        drawn = found.measured, found.strengths, str(config.checkpoint)
        write = partial(write_curves, Path(config.figure), *drawn)
        shows = "relative distance and kNN accuracy over the strength"
        pictures.append(Picture(config.figure, shows, write))
    protocol = {**model.protocol, **found.protocol}
    add_remarks(protocol, found.remarks)
    values = sample_values(found.measured[0], found.groups, found.parts.places)
    return Result(TASK, found.metrics, protocol, provenance, values, pictures=tuple(pictures))


def measure_invariance(model: FrozenModel, config: InvarianceConfig) -> Invariance | None:
    """The numbers of an opened backbone; None on all ranks but the first.

    Raises:
        UserError: the images do not suit, or a feature is not finite.
    """
    runtime = model.runtime
    strengths, remarks = _possible(config, channels_of(model.train))
    parts = draw_parts(model, config.images, config.bank, config.seed)
    assert parts.queries.labels is not None
    if len(np.unique(parts.queries.labels)) < 2:
        raise UserError(
            f"the {len(parts.queries)} images that are followed are of one class, and distances are relative "
            "to that between classes: take more with --images"
        )
    (k,), few = possible_ks([config.k], len(parts.bank))
    crops = read_crops(model, parts)
    with collectives.own_pace("drawing examples"):
        if config.examples is not None and runtime.is_main:
            own = parts.places[:: runtime.world_size]  # of rank 0
            write_examples(Path(config.examples), crops, own, strengths, config.seed)
            say(f"wrote {config.examples}: images in every transformation and strength")
    subjects = open_subjects(model, parts)
    if runtime.is_main:
        count = sum(map(len, strengths.values()))
        say(f"following {len(parts.queries)} images through {count} transformed versions")
    followed = follow(
        crops,
        parts.places,
        subjects,
        strengths,
        Vote(k, config.temperature, runtime),
        seed=config.seed,
        batch=model.config.forward_batch_size,
    )
    if not followed:
        return None
    measured = measure(followed, parts.queries.labels, config.resamples, config.seed)
    protocol = {
        "test": parts.split,
        "test_images": len(parts.queries),
        "bank_images": len(parts.bank),
        "strengths": {name: list(values) for name, values in strengths.items()},
        "units": {name: SCALES[name].unit for name in strengths},
        "transformed": "the crop that the network sees, its values rounded to eight bits",
        "distance": "1 - cosine",
        "relative_to": "mean distance of two of these images of different classes",
        "mean": "over the strengths above 0, then over the transformations",
        "k": k,
        "temperature": config.temperature,
        "similarity": "cosine",
        "resamples": config.resamples,
        "seed": config.seed,
        "interval": "percentile bootstrap over images, 95 %",
    }
    remarks += few + _on_collapse(measured) + remarks_on(subjects[0].bank, subjects[0].queries, "cosine")
    return Invariance(measured, groups_of(strengths), strengths, parts, protocol, remarks)


def _possible(config: InvarianceConfig, channels: int) -> tuple[dict[str, tuple[float, ...]], list[str]]:
    """The strengths that images of so many channels have, and a remark on what is left out.

    Raises:
        UserError: a transformation of colours is asked for by name, and there are none.
    """
    strengths = config.strengths
    colours = [name for name in strengths if SCALES[name].colours]
    if channels == RGB or not colours:
        return strengths, []
    if config.transformations != ["all"]:
        raise UserError(
            f"--transformations {colours[0]} changes red, green and blue, and these images have {channels} "
            "channels: leave it out"
        )
    left = {name: values for name, values in strengths.items() if name not in colours}
    return left, [f"{', '.join(colours)} are left out, for images of {channels} channels have no colours"]


def _on_collapse(measured: list[Measured]) -> list[str]:
    """A remark on each network whose features all point one way."""
    return [
        f"the features of {one.followed.name or 'the checkpoint'} all point one way, so no distance is "
        "relative to that between classes"
        for one in measured
        if one.classes.is_collapsed
    ]
