"""The configuration of a pretraining run: one section for each part, one for the chosen method's options.

Later ones win: the dataclass's default, then each `--config FILE` in order, then the command line
(siamtransfer/cli reads them). A method's section is made from its class's `Config`, and imported when the
method is chosen or its section is mentioned; nothing else here imports torch.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from siamtransfer.backbones.names import Stem
from siamtransfer.checkpoints.options import ReadingOptions, require_checkpoint
from siamtransfer.cli.parser import Schema, build, parse_values, settings_of_tree
from siamtransfer.methods.registry import METHODS, RENAMED, VARIANTS, current_names, section_of
from siamtransfer.optim.config import OptimConfig
from siamtransfer.utils.checks import above, at_least, check_timeout, within
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import read_checked_text
from siamtransfer.utils.log import say
from siamtransfer.utils.strict_json import flatten
from siamtransfer.views.config import ViewsConfig

if TYPE_CHECKING:
    from siamtransfer.methods.base import Options


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
    folder (one folder a class), flat (any folder, no labels), list (a text file of paths), shards (tar
    files), zip, parquet or huggingface (a folder of save_to_disk)."""
    root: str | None = None
    """Folder of the images, or of the files that hold them; embedded sets need none."""
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
    bit_depth: int | None = None
    """Bits of the grey images with more than eight, in a set of your own; null: 16, with a remark where they
    use few of them."""
    test_split: str | None = None
    """Part of the set that kNN is scored on; null: test or val where there is one, else each training image
    is scored against the others (leave-one-out)."""
    max_unreadable: float = 0.05
    """Share of unreadable images above which pretraining stops; below it they are replaced and counted."""
    workers: int | None = None
    """Processes per rank that decode and cut; null: what the machine has, up to 8."""


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
    reading: ReadingOptions = field(default_factory=ReadingOptions)


@dataclass
class MethodConfig:
    """Which method."""

    name: str = field(default="simsiam", metadata={"choices": lambda: tuple(METHODS)})
    """The method; its options are in the section of its name (moco_v3 for moco-v3)."""


@dataclass
class HardwareConfig:
    """Where and in what arithmetic."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:N; under torchrun every process takes its own GPU."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto: bfloat16 on GPUs that compute in it (not those that emulate it), float16 with a loss scaler on
    older ones, float32 on the CPU."""
    sync_batch_norm: bool = True
    """Batch-norm statistics over all ranks; SimSiam needs them when a rank's share is small."""
    threads: int | None = None
    """Threads that a rank computes with on the CPU; null: torch's choice, a thread a core. Small networks are
    faster with fewer and with data.workers on the other cores."""
    timeout_minutes: float = 30.0
    """How long a rank waits in a collective for the others before the run ends with a sentence that says what
    each was doing."""
    sync_batch_norm_kind: Literal["torch", "single-exchange"] = "torch"
    """Synchronised batch norm on several GPUs: torch's, which waits for the device in every layer, or ours,
    which has one exchange a layer and direction and no wait. On CPU ranks it is always ours."""
    compile: bool = False
    """Compile the backbones with torch.compile (minutes at the start, faster steps on recent GPUs). With
    several GPUs take sync_batch_norm_kind single-exchange: torch's cannot be compiled in one piece."""
    guard: Literal["step", "device"] = "step"
    """How an update from a loss or gradient that is not finite is prevented. step: the host reads the verdict
    of all ranks before every update. device: the device takes such an update back, and the host reads the
    verdict one step late, so that it never waits within a step; it takes a second copy of weights and
    optimizer state. Not with float16."""
    augment: Literal["exact", "fused", "compiled"] = "exact"
    """How the device augments views. exact: each operation on the views that it changes, fast on the CPU.
    fused: all operations on all views, a few dozen kernels instead of hundreds. compiled: that by
    torch.compile. They are equal to the rounding of float32; which is fastest on a GPU is not measured."""
    prefetch: bool = False
    """Copy and augment the next batch on a CUDA stream of its own while the device computes a step, which
    takes the memory of one more batch of views. It changes no number, and nothing on the CPU."""
    activation_checkpointing: bool = False
    """Recompute each block of the trained backbone in the backward pass instead of keeping its activations:
    about a third more computation for several times less memory. Results are the same to the bit."""
    shard: Literal["none", "fsdp2"] = "none"
    """fsdp2: the ranks share weights, gradients and optimizer state (for ViT-L and larger), each gathered
    block by block; checkpoints are those of a run without. Not with float16, compile or cuda_graph."""
    cuda_graph: bool = False
    """Record forward and backward pass as a CUDA graph and replay it (one GPU; not with float16, accumulation
    or methods that read numbers on the host)."""


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
    knn_bank_dtype: Literal["auto", "float32", "float16"] = "auto"
    """float16 keeps the bank's features scaled to length one and rounded to half precision; auto: where they
    would take more than 4 GiB in float32, over all ranks."""
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
    """Everything that a pretraining run is told."""

    common: ClassVar[tuple[str, ...]] = (
        "data.name",
        "data.root",
        "run.dir",
        "run.seed",
        "method.name",
        "backbone.name",
        "backbone.weights",
        "views.recipe",
        "views.size",
        "optim.epochs",
        "optim.batch_size",
        "optim.lr",
        "optim.weight_decay",
        "optim.warmup_epochs",
        "monitor.knn_every",
        "checkpoint.every_minutes",
        "hardware.device",
        "hardware.precision",
        "data.workers",
        "log.wandb",
    )
    aliases: ClassVar[dict[str, str]] = {**RENAMED, "resume_from_backbone": "backbone.weights"}

    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    method_options: Any = field(default=None, metadata={"dynamic": True})  # Options, which imports torch
    optim: OptimConfig = field(default_factory=OptimConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    monitor: MonitorConfig = field(default_factory=MonitorConfig)
    log: LogConfig = field(default_factory=LogConfig)

    @property
    def options(self) -> Options:
        """The chosen method's options; its defaults where none were given."""
        kind = METHODS[self.method.name].Config
        if self.method_options is None:
            self.method_options = kind()
        if not isinstance(self.method_options, kind):
            raise UserError(
                f"method.name is {self.method.name} and the options are {type(self.method_options).__name__}"
            )
        return self.method_options

    def check(self) -> None:
        """Raises UserError for a number that means nothing, or for more views than the method takes;
        `optim` is checked where the images are known."""
        data, monitor, saving = self.data, self.monitor, self.checkpoint
        at_least("data.workers", data.workers, 0)
        within("backbone.drop_path", self.backbone.drop_path, 0, 0.9)
        at_least("hardware.threads", self.hardware.threads, 1)
        check_timeout(self.hardware.timeout_minutes)
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
        if self.method.name not in METHODS:
            raise UserError(
                f"method.name {self.method.name!r} is not known: choose one of {', '.join(METHODS)}"
            )
        self.options.check(self.optim.batch_size)
        views = len(self.views.build().views)
        if views > 2 and not METHODS[self.method.name].multi_crop:
            takers = ", ".join(name for name in METHODS if METHODS[name].multi_crop)
            raise UserError(
                f"views.recipe {self.views.recipe} makes {views} views of an image and {self.method.name} "
                f"takes two: choose a recipe of two, or one of the methods {takers}"
            )

    def as_dict(self) -> dict[str, Any]:
        """Plain nested dicts, as checkpoints and records hold them; the options under the method's
        section."""
        tree: dict[str, Any] = {}
        for each in dataclasses.fields(PretrainConfig):
            if each.metadata.get("dynamic"):
                tree[section_of(self.method.name)] = dataclasses.asdict(self.options)
            else:
                tree[each.name] = dataclasses.asdict(getattr(self, each.name))
        return tree

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> PretrainConfig:
        """The configuration that `as_dict` made a dict of; that of an older version too.

        Raises:
            UserError: a key is unknown, or a value has the wrong type.
        """
        tree = current_names(tree)
        schema = Schema(cls)
        origin = "the saved configuration"
        cls.extend(schema, (), {origin: tree})
        return cls.assemble(parse_values([settings_of_tree(origin, tree, schema)], schema))

    # What siamtransfer/cli asks of a configuration whose sections depend on what is set.

    @classmethod
    def extend(
        cls, schema: Schema, words: Sequence[str], trees: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, Any]:
        """Adds the sections of the chosen method and of those that are mentioned; returns the values to
        force.

        Options that SimSiam had in older versions choose the method simsiam-variants.
        """
        keys = [schema.canonical(key) for tree in trees.values() for key in flatten(dict(tree))]
        keys += [schema.canonical(word[2:].partition("=")[0]) for word in words if word.startswith("--")]
        sections = {section_of(name): name for name in METHODS}
        schema.refuse_unknown(words, trees, known=set(sections))
        _refuse_missing_files(words)
        chosen = _chosen_method(words, trees.values())
        mentioned = {key.partition(".")[0] for key in keys} & set(sections)
        forced = {}
        if chosen == "simsiam" and _names_a_variant(keys):
            say(f"the method is {VARIANTS}, which has the options beyond the paper's")
            chosen, forced = VARIANTS, {"method.name": VARIANTS}
            schema.alias_section(section_of("simsiam"), section_of(VARIANTS))
            mentioned.discard(section_of("simsiam"))
        if chosen in METHODS:
            mentioned.add(section_of(chosen))
        for section in sorted(mentioned):
            schema.add_section(section, METHODS[sections[section]].Config)
        unused = mentioned - {section_of(chosen)}
        if unused:
            say(f"not used, for the method is {chosen}: the section {', '.join(sorted(unused))}")
        return forced

    @classmethod
    def assemble(cls, values: Mapping[str, Any]) -> PretrainConfig:
        """The configuration of parsed values."""
        config = build(cls, dict(values))
        kind = METHODS[config.method.name].Config
        config.method_options = build(kind, dict(values), prefix=f"{section_of(config.method.name)}.")
        return config

    @classmethod
    def section_of_topic(cls, topic: str) -> tuple[str, type] | None:
        """`--help simsiam`: the section of a method's options."""
        name = topic.replace("_", "-")
        if name not in METHODS:
            raise UserError(f"--help {topic}: there is no such method; choose one of {', '.join(METHODS)}")
        return section_of(name), METHODS[name].Config

    @classmethod
    def more_help(cls) -> str:
        """Where a method's options are listed."""
        return "A method's own options are in the section of its name: --help METHOD lists them."


def read_saved_config(folder: Path) -> dict[str, Any]:
    """The configuration in a run's folder.

    Raises:
        UserError: there is none, it is damaged, or it is none of ours.
    """
    file = folder / "config.json"
    try:
        tree = json.loads(read_checked_text(file))
    except FileNotFoundError as error:
        raise UserError(f"{folder} holds no run: there is no {file.name} in it") from error
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{file} is damaged: give the run's --config again") from error
    if not isinstance(tree, dict):
        raise UserError(f"{file} is no configuration: give the run's --config again")
    return current_names(tree)


def _refuse_missing_files(words: Sequence[str]) -> None:
    """Raises UserError for weights on the command line that are not there, before anything heavy is imported.

    A run that is resumed needs them no longer.
    """
    if any(word.partition("=")[0] == "--resume" for word in words):
        return
    for key in ("backbone.weights", "resume_from_backbone", "resume-from-backbone"):
        weights = _last_value(key, words, ())
        if isinstance(weights, str) and weights != "null":
            require_checkpoint(weights)


def _last_value(key: str, words: Sequence[str], trees: Iterable[Mapping[str, Any]]) -> object:
    """What a key is set to last, by a word or by a tree; None where nothing sets it."""
    value = None
    for tree in trees:
        value = flatten(dict(tree)).get(key, value)
    for word, after in itertools.zip_longest(words, words[1:], fillvalue=""):
        if word == f"--{key}":
            value = after
        elif word.startswith(f"--{key}="):
            value = word.partition("=")[2]
    return value


def _chosen_method(words: Sequence[str], trees: Iterable[Mapping[str, Any]]) -> str:
    name = _last_value("method.name", words, trees)
    return name if isinstance(name, str) else MethodConfig().name


def _names_a_variant(keys: Sequence[str]) -> bool:
    """Whether a key of the section simsiam is an option of simsiam-variants only."""
    own = {key.split(".")[1] for key in keys if key.startswith("simsiam.")}
    if not own:
        return False
    plain, variants = (
        {each.name for each in dataclasses.fields(METHODS[name].Config)} for name in ("simsiam", VARIANTS)
    )
    return bool(own & (variants - plain))


FREE_ON_RESUME = (
    "run.dir",
    "data.name",  # the fingerprint tells whether the images are the same: a folder goes on as shards
    "data.root",
    "data.download",
    "data.workers",
    "data.max_unreadable",
    "hardware.device",
    "hardware.precision",
    "hardware.threads",
    "hardware.timeout_minutes",
    "hardware.sync_batch_norm_kind",
    "hardware.compile",
    "hardware.guard",
    "hardware.cuda_graph",
    "hardware.prefetch",
    "hardware.activation_checkpointing",
    "hardware.shard",
    "checkpoint.",
    "monitor.on_collapse",
    "log.",
)
"""Keys that may differ between a run and its resumption, for they change no number by more than rounding."""


def _number_of_views(saved: Mapping[str, Any]) -> int:
    """Views of an image in a saved configuration; 2 where its section of views is not known."""
    try:
        return len(ViewsConfig.from_dict(saved["views"]).build().views)
    except (UserError, TypeError):
        return 2


def refuse_differences(saved: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """Raises UserError when two configurations (as dicts) differ in a key that matters; lists all such keys.

    `saved` may be an older version's: keys that it lacks count as having had their defaults.
    """
    saved = current_names(saved, views=_number_of_views(saved))
    method = saved["method"]["name"]
    defaults = PretrainConfig(method=MethodConfig(method)).as_dict()
    old, new = flatten(defaults) | flatten(dict(saved)), flatten(dict(current))
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
