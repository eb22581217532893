"""The values that a configuration leaves `auto`: chosen from the images and the machine, with reasons.

The choice is a function of the number of images, a sample of their sizes, and the device, so the same command
on the same machine gives the same run. One thing is timed, and then rounded to a power of two: how long a
processor needs to read an image, which decides the length of a run on a CPU where it is the slower part.
Speeds on the CPU were measured on one core of a Xeon (docs/OWN_IMAGES.md); what is chosen on a GPU was not
measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from siamtransfer.config import PretrainConfig
from siamtransfer.utils.errors import UserError

SIZES = (32, 48, 64, 96, 128, 160, 192, 224)
LARGEST_ON_CPU = 64  # pixels: at 224 a step takes six to twelve times as long
SMALL_STEM = 48  # pixels up to which a first stage of stride 4 leaves too little of a view
NARROW = 32  # channels of a ResNet's first stage on few cores: four times the speed of 64
MANY_CORES = 16  # from which a CPU trains the published width
MANY_IMAGES = 10_000  # from which a GPU trains a ResNet-50, for 200 epochs

MINUTES = 10.0  # that a run on the CPU is laid out for
SPEEDS = {"resnet18": 36.4, "resnet50": 17.0}
"""Images a second of a step of SimSiam on one core, with views of 64 pixels and the published width."""
FEWEST_EPOCHS, MOST_EPOCHS = 20, 400
PACKED = 256  # pixels of the shorter side of the small copies that are advised
MOST_EPOCHS_ON_GPU, STEPS_ON_GPU = 800, 10_000
GIB_PER_IMAGE = {"resnet18": 0.06, "resnet50": 0.22}
"""GiB of a GPU that the two views of an image of 224 pixels take, an upper estimate from the sizes of the
feature maps in float32."""


@dataclass(frozen=True)
class Facts:
    """What is there.

    Attributes:
        images: how many to train on.
        side: the median length in pixels of the shorter side of the images, of a sample.
        device: cpu or cuda.
        memory: GiB of a GPU.
        cores: processors of one rank.
        ranks: processes that train together.
        reading: the mean time in seconds in which one processor reads and decodes an image, of a sample.
    """

    images: int
    side: int
    device: str
    memory: float
    cores: int
    ranks: int = 1
    reading: float = 0.0

    @property
    def on_cpu(self) -> bool:
        """Whether the processors compute."""
        return self.device == "cpu"


class Chosen(NamedTuple):
    """A value, and why it is that."""

    value: Any
    reason: str


def choose_values(config: PretrainConfig, facts: Facts) -> dict[str, Chosen]:
    """A value for each key of `config` that is undecided but data.name, and sets it there. Those that are
    stated stay, and the others suit them.

    Raises:
        UserError: there are too few images for a batch.
    """
    if facts.images < 2 * facts.ranks:
        share = "" if facts.ranks == 1 else f" for each of {facts.ranks} processes"
        raise UserError(
            f"the set has {facts.images} image{'s' * (facts.images != 1)} "
            f"and a batch needs two{share}: add images"
        )
    chosen: dict[str, Chosen] = {}
    for key, choose in _RULES.items():
        if key in config.undecided:
            chosen[key] = choose(config, facts)
            config.decide({key: chosen[key].value})
    return chosen


def _network(config: PretrainConfig, facts: Facts) -> Chosen:
    if config.backbone.weights is not None:
        return Chosen(None, "the network is that of backbone.weights")
    if facts.on_cpu:
        return Chosen("resnet18", "a CPU computes")
    if facts.images < MANY_IMAGES:
        return Chosen("resnet18", f"{facts.images} images are fewer than {MANY_IMAGES:,}")
    return Chosen("resnet50", f"there are {facts.images} images and a GPU")


def _size(config: PretrainConfig, facts: Facts) -> Chosen:
    limit = LARGEST_ON_CPU if facts.on_cpu else SIZES[-1]
    size = max([size for size in SIZES if size <= min(facts.side, limit)], default=SIZES[0])
    there = f"the shorter side of the images has {facts.side} pixels, the median of a few"
    return Chosen(size, f"{there}, and a CPU computes" if facts.on_cpu and facts.side > limit else there)


def _width(config: PretrainConfig, facts: Facts) -> Chosen:
    if config.backbone.weights is not None:
        return Chosen(None, "the width is that of backbone.weights")
    if config.backbone.name not in SPEEDS or not facts.on_cpu or facts.cores >= MANY_CORES:
        return Chosen(64, "it is the published one")
    return Chosen(
        NARROW,
        f"{facts.cores} core{'s' * (facts.cores != 1)} train the published 64 channels four times as slowly",
    )


def _stem(config: PretrainConfig, facts: Facts) -> Chosen:
    if config.backbone.weights is not None:
        return Chosen(None, "the stem is that of backbone.weights")
    size = _view_size(config)
    if size <= SMALL_STEM and config.backbone.name in SPEEDS:
        return Chosen("small", f"views of {size} pixels leave too little after a stride of 4")
    return Chosen("imagenet", f"views have {size} pixels")


def _batch_size(config: PretrainConfig, facts: Facts) -> Chosen:
    images, passes = facts.images, facts.ranks * config.optim.grad_accum_steps
    limit, why = (
        (64, "a CPU computes")
        if facts.on_cpu
        else (256, "more images a batch need more memory and a warm-up")
    )
    if not facts.on_cpu:
        needed = GIB_PER_IMAGE.get(config.backbone.name or "", 0.22) * (_view_size(config) / 224) ** 2
        room = 2 ** int(math.log2(max(2, facts.memory * 0.8 / needed))) * facts.ranks
        if room < limit:
            limit, why = room, f"a GPU has {facts.memory:.0f} GiB"
    few = max(8, 2 ** int(math.log2(images / 4))) if images >= 8 else 2 ** int(math.log2(images))
    if few < limit:
        limit, why = few, f"{images} images are few, and an epoch needs several steps"
    batch = max(2 * passes, limit // passes * passes)
    return Chosen(batch, why)


def _epochs(config: PretrainConfig, facts: Facts) -> Chosen:
    steps = max(1, facts.images // config.optim.batch_size)
    if not facts.on_cpu:
        epochs = min(MOST_EPOCHS_ON_GPU, max(200, round(STEPS_ON_GPU / steps)))
        return Chosen(epochs, f"they are {epochs * steps:,} steps")
    computing = speed_on_cpu(config, facts)
    if computing is None:
        return Chosen(100, f"the speed of {config.backbone.name or 'this network'} on a CPU is not known")
    reading = reading_speed_on_cpu(config, facts)
    speed = min(computing, reading)
    fitting = round(60 * MINUTES * speed / facts.images)
    epochs = min(MOST_EPOCHS, max(FEWEST_EPOCHS, fitting))
    minutes = epochs * facts.images / speed / 60
    cores = f"{facts.cores} core{'s' * (facts.cores != 1)}"
    reason = f"{epochs} passes over {facts.images} images should take about {_about(minutes)} on {cores}"
    if reading < computing:
        reason += f", since reading an image takes {1000 * facts.reading:.0f} ms"
    if epochs > fitting:
        reason += ", and fewer would teach little"
    if reading < computing:
        reason += f" (siamtransfer pack IN OUT --size {PACKED} makes small copies, which are read faster)"
    return Chosen(epochs, reason)


def _knn_every(config: PretrainConfig, facts: Facts) -> Chosen:
    every = max(1, math.ceil(config.optim.epochs / 8))
    return Chosen(every, f"that makes about 8 checks in {config.optim.epochs} epochs")


def _log_every(config: PretrainConfig, facts: Facts) -> Chosen:
    steps = facts.images // config.optim.batch_size * config.optim.epochs
    every = max(1, min(10, steps // 20))
    return Chosen(every, f"the run has {steps:,} steps")


_RULES: dict[str, Callable[[PretrainConfig, Facts], Chosen]] = {
    "backbone.name": _network,
    "views.size": _size,
    "backbone.width": _width,
    "backbone.stem": _stem,
    "optim.batch_size": _batch_size,
    "optim.epochs": _epochs,
    "monitor.knn_every": _knn_every,
    "log.every": _log_every,
}
"""What chooses the value of each key, in an order in which later ones may look at earlier ones."""


def speed_on_cpu(config: PretrainConfig, facts: Facts) -> float | None:
    """Images a second that a step of the configured network takes on the CPU, by what was measured; None
    where nothing was. Time grows with the 1.4th power of the side of a view, and with the square of the
    width."""
    backbone = config.backbone
    if backbone.weights is not None or backbone.name not in SPEEDS:
        return None
    side = _view_size(config) * (3.25 if backbone.stem == "small" else 1)
    one_core = SPEEDS[backbone.name] * (64 / (backbone.width or 64)) ** 2 * (64 / side) ** 1.4
    return one_core * max(1, facts.cores - 1)  # one is for cutting views


def reading_speed_on_cpu(config: PretrainConfig, facts: Facts) -> float:
    """Images a second that the workers of a run on the CPU read; infinite where reading takes no time."""
    stated = config.data.workers
    workers = max(1, facts.cores // 2 if stated is None else min(stated, facts.cores))
    return workers / facts.reading if facts.reading > 0 else math.inf


def _view_size(config: PretrainConfig) -> int:
    return config.views.build().views[0].size


def _about(minutes: float) -> str:
    return f"{max(1, round(minutes))} minutes" if minutes < 90 else f"{minutes / 60:.0f} hours"
