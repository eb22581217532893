"""Configurations: typed dataclasses, a YAML file, and `--section.key VALUE` on the command line.

Later ones win: the dataclass's default, then each `--config FILE` in order, then the command line. An unknown
key is an error that names the nearest known one.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

import jsonargparse

from siamtransfer.backbones.architecture import Stem
from siamtransfer.methods import METHODS, MethodName, Options, section_of
from siamtransfer.methods.barlow_twins import BarlowTwinsConfig
from siamtransfer.methods.byol import BYOLConfig
from siamtransfer.methods.dino import DINOConfig
from siamtransfer.methods.directpred import DirectPredConfig
from siamtransfer.methods.moco import MoCoConfig
from siamtransfer.methods.moco_v3 import MoCoV3Config
from siamtransfer.methods.simclr import SimCLRConfig
from siamtransfer.methods.simsiam import SimSiamConfig
from siamtransfer.methods.swav import SwAVConfig
from siamtransfer.methods.unigrad import UniGradConfig
from siamtransfer.methods.vicreg import VICRegConfig
from siamtransfer.optim.optimizers import OptimConfig
from siamtransfer.utils.checks import above, at_least, within
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.strict_json import flatten
from siamtransfer.views.recipes import recipe

C = TypeVar("C")

jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)


@dataclass
class RunConfig:
    """The run and its folder."""

    dir: str = "runs/simsiam"
    """Folder for checkpoints, metrics and logs; one run at a time may use it."""
    seed: int = 0
    """Decides initial weights, order of images and every view."""


@dataclass
class DataConfig:
    """Which images."""

    name: str = "imagenet"
    """fashion-scenes, fashion-objects (both embedded), cifar10, cifar100, stl10, fashion-mnist, imagenet,
    folder (one folder a class), flat (any folder, no labels) or list (a text file of paths)."""
    root: str | None = None
    """Folder of the images; embedded sets need none."""
    split: str = "train"
    """Part of the set to train on."""
    list_file: str | None = None
    """Text file of image paths for the set `list`."""
    download: bool = False
    """Let torchvision download a set that is missing under root."""
    size: int | None = None
    """Side in pixels of the embedded scenes."""
    count: int | None = None
    """How many embedded scenes to generate for training."""
    test_split: str | None = None
    """Part of the set that kNN is scored on; null: test or val where there is one, else each training image
    is scored against the others (leave-one-out)."""
    max_unreadable: float = 0.05
    """Share of unreadable images above which pretraining stops; below it they are replaced and counted."""
    workers: int | None = None
    """Processes per rank that decode and cut; null: what the machine has, up to 8."""


@dataclass
class ViewsConfig:
    """How an image becomes views."""

    recipe: str = "simsiam"
    """A recipe by name: simsiam, moco-v1, simclr, byol, swav, cifar-simsiam, grey, …"""
    size: int | None = None
    """Side in pixels of the global views; null: the recipe's own."""


@dataclass
class BackboneConfig:
    """The network to be trained."""

    name: str = "resnet50"
    """resnet18, resnet34, resnet50, resnet101, or any timm model by name."""
    width: int = 64
    """Channels of a ResNet's first stage; 64 is the published one."""
    stem: Stem = "imagenet"
    """imagenet: 7x7 stride 2 and max-pool; small: 3x3 stride 1, for images of 32 pixels or so; small-pad2:
    the same with solo-learn's padding of 2."""
    zero_init_residual: bool = True
    """Start every residual block as the identity, as SimSiam does."""
    drop_path: float = 0.0
    """Rate of stochastic depth in training, for timm's models only (DINO's ViTs: 0.1)."""
    weights: str | None = None
    """Checkpoint of any known format whose backbone the run starts from (also --resume-from-backbone); it
    must be of the architecture that name, width and stem say. null: random weights."""
    branch: str | None = None
    """Which backbone of that checkpoint; null: the one that its format names first."""


@dataclass
class MethodConfig:
    """Which method."""

    name: MethodName = "simsiam"
    """The method; its options are in the section of its name (moco_v3 for moco-v3)."""


@dataclass
class HardwareConfig:
    """Where and in what arithmetic."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:N; under torchrun every process takes its own GPU."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto: bfloat16 on GPUs that have it, float16 with a loss scaler on older ones, float32 on the CPU."""
    sync_batch_norm: bool = True
    """Batch-norm statistics over all ranks; SimSiam needs them when a rank's share is small."""
    threads: int | None = None
    """Threads that a rank computes with on the CPU; null: torch's choice, a thread a core. Small networks are
    faster with fewer and with data.workers on the other cores."""
    compile: bool = False
    """Compile the backbone with torch.compile (minutes at the start, faster steps on recent GPUs)."""


@dataclass
class CheckpointConfig:
    """When to save."""

    every_steps: int = 0
    """Save every N steps; 0: only by time, on a signal and at the end."""
    every_minutes: float = 10.0
    """Save at least every N minutes; 0: not by time."""
    keep: int = 2
    """How many checkpoints to keep."""


@dataclass
class MonitorConfig:
    """How the run is watched."""

    knn_every: int = 10
    """Epochs between kNN checks on the labelled split; 0: never. The last epoch is always checked."""
    knn_k: int = 20
    """Neighbours that vote."""
    knn_temperature: float = 0.07
    """Temperature of the vote."""
    knn_bank: int = 0
    """Training images in the kNN bank, the first of a fixed shuffle; 0: all."""
    health_every: int = 50
    """Steps between checks of the projections (std, effective rank, centre, cosine); 0: never."""
    gradients_every: int = 0
    """Steps between gradient views (rows gradient/...: what pulls and what pushes embeddings, see
    eval/gradients.py), each at the price of about a forward pass; 0: never."""
    on_collapse: Literal["warn", "stop", "ignore"] = "warn"
    """What a collapse alarm does to the run."""


@dataclass
class LogConfig:
    """What is written down."""

    every: int = 10
    """Steps between rows of metrics.jsonl and progress lines."""
    tensorboard: bool = True
    """Write TensorBoard events to <run.dir>/tensorboard."""
    wandb: bool = False
    """Mirror the numbers to Weights & Biases (extra: wandb)."""


@dataclass
class PretrainConfig:
    """Everything that pretrain/main.py can be told."""

    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    simsiam: SimSiamConfig = field(default_factory=SimSiamConfig)
    simclr: SimCLRConfig = field(default_factory=SimCLRConfig)
    moco: MoCoConfig = field(default_factory=MoCoConfig)
    moco_v3: MoCoV3Config = field(default_factory=MoCoV3Config)
    byol: BYOLConfig = field(default_factory=BYOLConfig)
    swav: SwAVConfig = field(default_factory=SwAVConfig)
    dino: DINOConfig = field(default_factory=DINOConfig)
    barlow_twins: BarlowTwinsConfig = field(default_factory=BarlowTwinsConfig)
    vicreg: VICRegConfig = field(default_factory=VICRegConfig)
    directpred: DirectPredConfig = field(default_factory=DirectPredConfig)
    unigrad: UniGradConfig = field(default_factory=UniGradConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    monitor: MonitorConfig = field(default_factory=MonitorConfig)
    log: LogConfig = field(default_factory=LogConfig)

    @property
    def options(self) -> Options:
        """The chosen method's section."""
        return getattr(self, section_of(self.method.name))

    def check(self) -> None:
        """Raises UserError for a number that means nothing, or for more views than the method takes; `optim`
        is checked where the images are known."""
        data, monitor, saving = self.data, self.monitor, self.checkpoint
        at_least("data.workers", data.workers, 0)
        within("backbone.drop_path", self.backbone.drop_path, 0, 0.9)
        at_least("hardware.threads", self.hardware.threads, 1)
        at_least("checkpoint.every_steps", saving.every_steps, 0)
        at_least("checkpoint.every_minutes", saving.every_minutes, 0)
        at_least("checkpoint.keep", saving.keep, 1)
        at_least("monitor.knn_every", monitor.knn_every, 0)
        at_least("monitor.knn_k", monitor.knn_k, 1)
        above("monitor.knn_temperature", monitor.knn_temperature, 0)
        at_least("monitor.knn_bank", monitor.knn_bank, 0)
        at_least("monitor.health_every", monitor.health_every, 0)
        at_least("monitor.gradients_every", monitor.gradients_every, 0)
        at_least("log.every", self.log.every, 1)
        self.options.check(self.optim.batch)
        views = len(recipe(self.views.recipe, size=self.views.size).views)
        if views > 2 and not METHODS[self.method.name].multi_crop:
            takers = ", ".join(name for name, entry in METHODS.items() if entry.multi_crop)
            raise UserError(
                f"views.recipe {self.views.recipe} makes {views} views of an image and {self.method.name} "
                f"takes two: choose a recipe of two, or one of the methods {takers}"
            )


FREE_ON_RESUME = (
    "run.dir",
    "data.root",
    "data.download",
    "data.workers",
    "data.max_unreadable",
    "hardware.device",
    "hardware.threads",
    "checkpoint.",
    "monitor.on_collapse",
    "log.",
)
"""Keys that may differ between a run and its resumption, for they change no number by more than rounding."""


def refuse_differences(saved: dict[str, Any], current: dict[str, Any]) -> None:
    """Raises UserError when two configurations differ in a key that matters; lists all such keys.

    A key that `saved` lacks, being of an older version, counts as having had its default.
    """
    method = saved["method"]["name"]
    defaults = as_dict(PretrainConfig(method=MethodConfig(method)))
    old, new = flatten(defaults) | flatten(saved), flatten(current)
    free: tuple[str, ...] = FREE_ON_RESUME
    if method != current["method"]["name"]:
        free += tuple(f"{section_of(name)}." for name in METHODS)  # the name says enough
    differing = [
        f"{key} {old.get(key)!r} -> {new.get(key)!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not key.startswith(free)
    ]
    if differing:
        raise UserError(
            f"the run to resume has another configuration ({'; '.join(differing)}): "
            "give it the same, or start afresh in another --run.dir"
        )


def as_dict(config: PretrainConfig) -> dict[str, Any]:
    """A configuration as plain nested dicts; of the methods' sections it has the chosen one's only."""
    chosen = config.method.name
    others = {section_of(name) for name in METHODS if name != chosen}
    return {key: value for key, value in dataclasses.asdict(config).items() if key not in others}


class _Help(argparse.RawDescriptionHelpFormatter, jsonargparse.DefaultHelpFormatter):
    """jsonargparse's help with the description's line breaks kept."""


class Parser(jsonargparse.ArgumentParser):
    """jsonargparse's parser whose errors are UserErrors in one sentence, with the nearest known key."""

    def __init__(self, **options: Any):
        super().__init__(exit_on_error=True, formatter_class=_Help, **options)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        text = re.sub(r"<class '(\w+)'>", r"\1", " ".join(str(message).split())).replace("typing.", "")
        raise UserError(text.rstrip(".") + self._nearest(text) + "; --help lists every key")

    def _nearest(self, text: str) -> str:
        unknown = re.search(r"unrecognized arguments: (\S+)", text)
        in_group = re.search(r"Group '(\S+)' does not accept option '(\S+)'", text)
        in_file = re.search(r"(?:Key|Option) '([\w.]+)' is not (?:expected|accepted)", text)
        if in_group:
            key = f"{in_group[1]}.{in_group[2]}"
        elif unknown or in_file:
            key = (unknown or in_file)[1].split("=")[0].lstrip("-")  # type: ignore[index]
        else:
            return ""
        known = [o.lstrip("-") for action in self._actions for o in action.option_strings]
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        return f"; did you mean --{near[0]}" if near else ""


def parse(
    kind: type[C],
    *,
    description: str,
    default_file: Path | None = None,
    arguments: Callable[[Parser], None] = lambda parser: None,
    argv: Sequence[str] | None = None,
) -> tuple[C, jsonargparse.Namespace]:
    """Reads the command line into a `kind` dataclass, and whatever else `arguments` adds to the parser.

    `default_file` is read when no --config is given.

    Raises:
        UserError: an unknown key, a value of the wrong type, or a configuration file that cannot be read.
    """
    given = [_with_underscores(word) for word in (sys.argv[1:] if argv is None else argv)]
    parser = Parser(description=description)
    parser.add_argument(
        "--config",
        action="config",
        help="YAML file of settings, may be given several times"
        + (f" (default: configs/pretrain/{default_file.name})" if default_file else ""),
    )
    arguments(parser)
    parser.add_class_arguments(kind, None, as_group=False)
    if default_file is not None and not any(a == "--config" or a.startswith("--config=") for a in given):
        given = ["--config", str(default_file), *given]
    namespace = _parse(parser, given)
    instances = (
        parser.instantiate(namespace)
        if hasattr(parser, "instantiate")
        else parser.instantiate_classes(namespace)
    )
    fields = {f.name: getattr(instances, f.name) for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(**fields), namespace


def _parse(parser: Parser, given: list[str]) -> jsonargparse.Namespace:
    """The parsed words; a mistake in a configuration file is told with the file's name."""
    try:
        return parser.parse_args(given)
    except UserError as error:
        pairs = zip(given, [*given[1:], ""], strict=True)
        files = [
            after if word == "--config" else word[9:] for word, after in pairs if word.startswith("--config")
        ]
        for file in filter(lambda name: Path(name).is_file(), files):
            try:
                parser.parse_args([f"--config={file}"])
            except UserError as own:
                raise UserError(f"{file}: {own}") from error
        raise


def _with_underscores(word: str) -> str:
    """`--train-features` means `--train_features`: keys may be spelled either way."""
    if not word.startswith("--"):
        return word
    key, equals, value = word.partition("=")
    return "--" + key[2:].replace("-", "_") + equals + value
