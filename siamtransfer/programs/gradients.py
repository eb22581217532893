"""The gradient view: what a method's loss asks of its embeddings, as a pull, a push and their balance.

    python eval/gradients.py runs/demo/checkpoint.pth
    python eval/gradients.py runs/demo/checkpoints --plot gradients.png          one run over its training
    python eval/gradients.py runs/a/checkpoints runs/b/checkpoints --plot ab.png
    python eval/gradients.py imagenet.pth --data.root /elsewhere/imagenet --batches 8

Every checkpoint of our own (any method but SwAV and DINO, whose targets are no embeddings) is taken up where
it was saved: its heads, target network, queue and averages, on views of its recorded images by its recorded
recipe, which training has not drawn. The gradient with respect to an embedding is split in closed form and
counts only where autograd of the method's own loss agrees (float64, below 1e-8). Numbers are called
gradient/NAME; those of several checkpoints begin with the checkpoint's place (1/gradient/ratio).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch

from siamtransfer.checkpoints.declaration import FORMAT
from siamtransfer.checkpoints.read_backbone import ReadBackbone, read_backbone
from siamtransfer.checkpoints.training_state import read_state
from siamtransfer.cli import run
from siamtransfer.cli.legacy import Parser, parse
from siamtransfer.data import ImageSet, open_images
from siamtransfer.data.imageset import require_same_images
from siamtransfer.data.readers import StrictReader
from siamtransfer.distributed.runtime import Runtime, start_runtime, unwrap
from siamtransfer.evaluation.gradients import GUIDE, PREFIX, average, decompose, indicators, require_form
from siamtransfer.features.augmented import EPOCH
from siamtransfer.methods import METHODS, Method, saved_options, section_of
from siamtransfer.records.predictions import publish
from siamtransfer.records.record import record
from siamtransfer.utils.checks import at_least
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import atomic_write, refuse_outputs, refuse_record
from siamtransfer.utils.log import say
from siamtransfer.views.config import ViewsConfig
from siamtransfer.views.dataset import ViewSet, augment_batch
from siamtransfer.views.loading import build_loader
from siamtransfer.views.sampler import epoch_order
from siamtransfer.views.view_spec import Recipe

COLUMNS = 4  # of panels in a plot


@dataclass
class ImagesConfig:
    """Where the recorded images are now."""

    root: str | None = None
    """Folder of the images; null: the recorded one."""
    list_file: str | None = None
    """Text file of paths, where one was recorded; null: that one."""
    workers: int = 0
    """Processes that decode and cut."""


@dataclass
class GradientsConfig:
    """What is measured, and where."""

    data: ImagesConfig = field(default_factory=ImagesConfig)
    batches: int = 4
    """Batches whose indicators are averaged."""
    batch: int | None = None
    """Images in a batch; null: as many as one loss saw in training."""
    seed: int = 0
    """Decides which images are taken and how they are cut."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Arithmetic of the backbone; heads and losses are in float64."""
    record: str | None = None
    """Write the record there, too (OUT.json)."""

    def __post_init__(self) -> None:
        at_least("--batches", self.batches, 1)
        at_least("--batch", self.batch, 2)
        at_least("--data.workers", self.data.workers, 0)
        refuse_record(self.record)


@dataclass(eq=False)
class Subject:
    """A checkpoint, the images and the recipe that it records, and the size of a batch."""

    read: ReadBackbone
    images: ImageSet
    views: Recipe
    batch: int

    @property
    def config(self) -> dict[str, Any]:
        """The run's configuration."""
        return cast(dict[str, Any], self.read.meta["config"])

    @property
    def step(self) -> int:
        """The steps that it was trained for."""
        return int(self.read.meta["progress"]["step"])

    @property
    def run(self) -> str:
        """What a curve is of: the method and the run's folder."""
        return f"{self.config['method']['name']} ({self.config['run']['dir']})"


def main(argv: list[str] | None = None) -> dict[str, Any] | None:
    """The command line; returns the record on rank 0."""
    config, asked = parse(GradientsConfig, description=__doc__, arguments=_arguments, argv=argv)
    paths = find_checkpoints(asked.checkpoints)
    if asked.plot is not None:
        if Path(asked.plot).suffix != ".png":
            raise UserError(f"--plot {asked.plot} must end in .png")
        for path in paths:
            refuse_outputs(str(path), [Path(asked.plot)], force=True)
    with start_runtime(config.device, config.precision) as runtime:
        subjects = open_subjects(paths, config, runtime.world_size)
        measured = []
        for subject in subjects:
            if runtime.is_main:
                say(f"{subject.read.path}: {config.batches} batches of {subject.batch} images")
            measured.append(measure(subject, config, runtime))
        if not runtime.is_main:
            return None
    show(subjects, measured)
    if asked.plot is not None:
        write_curves(Path(asked.plot), subjects, measured)
        say(f"wrote {asked.plot}: the indicators over training")
    protocol = {
        "batches": config.batches,
        "seed": config.seed,
        "precision": runtime.precision,
        "heads and loss": "float64",
        "batch norm": "statistics of the batch",
        "checkpoints": [describe(subject) for subject in subjects],
    }
    provenance = [
        {
            "checkpoint": subject.read.path,
            "weights_digest": subject.read.digest,
            "data_fingerprint": subject.images.fingerprint,
        }
        for subject in subjects
    ]
    return publish(record("gradients", join(measured), protocol, checkpoints=provenance), None, config.record)


def find_checkpoints(sources: Sequence[str]) -> list[Path]:
    """The files that are named, and of folders every .pth in them, in the order of their names.

    Raises:
        UserError: there are none, or there is no such file or folder.
    """
    found: list[Path] = []
    for source in map(Path, sources):
        inside = sorted(source.glob("*.pth")) if source.is_dir() else [source]
        if not inside:
            raise UserError(f"{source} holds no .pth files: name a run's folder checkpoints, or a checkpoint")
        found += inside
    return found


def open_subjects(paths: Sequence[Path], config: GradientsConfig, world_size: int) -> list[Subject]:
    """Reads what every file says of itself and opens the images, before any is measured.

    Raises:
        UserError: a file is not ours, its method has no gradient view, or its images do not suffice.
    """
    opened: dict[str, ImageSet] = {}
    return [_open(path, config, opened, world_size) for path in paths]


def _open(path: Path, config: GradientsConfig, opened: dict[str, ImageSet], world_size: int) -> Subject:
    read = read_backbone(path)
    if read.format != FORMAT:
        raise UserError(
            f"{path} is {read.format}, and the gradient is one of heads and loss too: only checkpoints of "
            "pretrain/main.py hold them"
        )
    recorded = read.meta["config"]
    data = {key: recorded["data"][key] for key in ("name", "root", "split", "list_file", "size", "count")}
    data |= {key: value for key in ("root", "list_file") if (value := getattr(config.data, key)) is not None}
    known = json.dumps(data)
    if known not in opened:
        opened[known] = open_images(data.pop("name"), **data)
    images, normalisation = opened[known], read.normalisation
    settings = ViewsConfig.from_dict(recorded["views"])
    views = replace(settings, mean=list(normalisation.mean), std=list(normalisation.std)).build()
    require_form(saved_options(recorded)[1], len(views.views))
    optim = recorded["optim"]
    batch = config.batch or optim["batch"] // optim["accumulate"]
    if batch % world_size:
        raise UserError(f"--batch {batch} cannot be shared equally by {world_size} ranks")
    if batch * config.batches > len(images):
        raise UserError(
            f"{config.batches} batches of {batch} are more than the {len(images)} images of {images.name}/"
            f"{images.split}: lower --batches or --batch"
        )
    return Subject(read, images, views, batch)


def measure(subject: Subject, config: GradientsConfig, runtime: Runtime) -> dict[str, float]:
    """The indicators, averaged over the batches."""
    method = rebuild(subject)
    torch.manual_seed(config.seed)
    synchronise = subject.config["hardware"]["sync_batch_norm"]
    method = unwrap(runtime.distribute(method, synchronise_batch_norm=synchronise)).train()
    order = epoch_order(len(subject.images), config.seed, 0)
    share = slice(
        runtime.rank * subject.batch // runtime.world_size,
        (runtime.rank + 1) * subject.batch // runtime.world_size,
    )
    tickets = [
        [(EPOCH, int(index)) for index in order[begin : begin + subject.batch][share]]
        for begin in range(0, config.batches * subject.batch, subject.batch)
    ]
    loader = build_loader(
        ViewSet(StrictReader(subject.images), subject.views, config.seed, len(subject.images)),
        cast(Any, tickets),
        workers=config.data.workers,
        pin_memory=runtime.device.type == "cuda",
    )
    several = []
    for batch in loader:
        painted = augment_batch(batch, subject.views, runtime.device, channels_last=True)
        several.append(indicators(decompose(method, painted, runtime)))
    return average(several)


def rebuild(subject: Subject) -> Method:
    """The method as it was saved, all of it.

    Raises:
        UserError: the images are not those of the run, or the file does not hold what its configuration says.
    """
    read = subject.read
    state = read_state(Path(read.path))
    data = state["data"]
    require_same_images(subject.images, fingerprint=data["fingerprint"], count=data["images"])
    try:
        name, options = saved_options(state["config"])
        method = METHODS[name](read.architecture.build(), options)
        method.load_state_dict(state["model"])
    except (KeyError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{read.path} does not hold the method that its configuration says: {reason}"
        ) from error
    return method


def describe(subject: Subject) -> dict[str, Any]:
    """What a checkpoint's numbers depend on, for the record."""
    return {
        "checkpoint": subject.read.path,
        "run": subject.run,
        "step": subject.step,
        "images": f"{subject.images.name}/{subject.images.split}",
        "recipe": subject.views.name,
        "batch": subject.batch,
        "method": subject.config[section_of(subject.config["method"]["name"])],
    }


def join(measured: Sequence[dict[str, float]]) -> dict[str, float]:
    """One flat dict; of several checkpoints each name begins with its place, from 1."""
    if len(measured) == 1:
        return measured[0]
    return {f"{n}/{name}": value for n, numbers in enumerate(measured, 1) for name, value in numbers.items()}


def show(subjects: Sequence[Subject], measured: Sequence[dict[str, float]]) -> None:
    """The table: a column for each checkpoint, a row for each indicator."""
    for n, subject in enumerate(subjects, 1):
        say(f"[{n}] {subject.read.path}: {subject.run}, step {subject.step}")
    say(f"{'':16}" + "".join(f"{f'[{n + 1}]':>11}" for n in range(len(subjects))))
    for name, guide in GUIDE.items():
        values = [numbers[PREFIX + name] for numbers in measured]
        cells = "".join(f"{'-' if math.isnan(value) else f'{value:.4g}':>11}" for value in values)
        say(f"{name:16}{cells}   {guide}")


def write_curves(path: Path, subjects: Sequence[Subject], measured: Sequence[dict[str, float]]) -> None:
    """Draws every indicator over the steps of training as a PNG, a line for each run."""
    from matplotlib.figure import Figure

    runs: dict[str, list[tuple[int, dict[str, float]]]] = {}
    for subject, numbers in zip(subjects, measured, strict=True):
        runs.setdefault(subject.run, []).append((subject.step, numbers))
    names = [name for name in GUIDE if any(math.isfinite(numbers[PREFIX + name]) for numbers in measured)]
    rows = -(-len(names) // COLUMNS)
    figure = Figure(figsize=(3.2 * COLUMNS, 2.8 * rows), layout="constrained")
    panels = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    for axes in panels[len(names) :]:
        axes.remove()
    for name, axes in zip(names, panels, strict=False):
        for label, points in runs.items():
            curve = sorted((step, numbers[PREFIX + name]) for step, numbers in points)
            axes.plot(*zip(*curve, strict=True), marker="o", label=label)
        axes.set(title=name, xlabel="step")
    lines, labels = panels[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", fontsize="small")
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=110)


def _arguments(parser: Parser) -> None:
    parser.add_argument(
        "checkpoints",
        metavar="CKPT",
        nargs="+",
        help="checkpoints of pretrain/main.py, or folders of them (runs/X/checkpoints)",
    )
    parser.add_argument("--plot", metavar="OUT.png", default=None, help="draw the indicators over training")


if __name__ == "__main__":
    run(main)
