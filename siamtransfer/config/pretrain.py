"""The configuration of a pretraining run: one section for each part, one for the chosen method's options.

Later ones win: the dataclass's default, then each `--config FILE` in order, then the command line
(siamtransfer/cli reads them). A method's section is made from its class's `Config`, and imported when the
method is chosen or its section is mentioned; nothing else here imports torch.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from siamtransfer.adaptation.config import AdaptConfig
from siamtransfer.checkpoints.options import require_checkpoint
from siamtransfer.cli.options import AUTO
from siamtransfer.cli.parser import Schema, build, parse_values, settings_of_tree
from siamtransfer.config.sections import (
    BackboneConfig,
    CheckpointConfig,
    DataConfig,
    HardwareConfig,
    LogConfig,
    MethodConfig,
    MonitorConfig,
    RunConfig,
)
from siamtransfer.methods.registry import METHODS, RENAMED, VARIANTS, current_names, section_of
from siamtransfer.optim.config import OptimConfig
from siamtransfer.trackers.targets import refuse_password
from siamtransfer.utils.checks import above, at_least, check_timeout, within
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say
from siamtransfer.utils.strict_json import flatten
from siamtransfer.utils.text import printable
from siamtransfer.views.config import ViewsConfig

if TYPE_CHECKING:
    from siamtransfer.methods.base import Options


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
        "log.mlflow",
    )
    aliases: ClassVar[dict[str, str]] = {**RENAMED, "resume_from_backbone": "backbone.weights"}
    auto: ClassVar[tuple[str, ...]] = (
        "data.name",
        "backbone.name",
        "backbone.width",
        "backbone.stem",
        "views.size",
        "optim.batch_size",
        "optim.epochs",
        "monitor.knn_every",
        "log.every",
    )
    """Keys that may be `auto`: the run chooses their values from the images and the machine
    (pretraining/chosen_values.py)."""

    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    method_options: Any = field(default=None, metadata={"dynamic": True})  # Options, which imports torch
    undecided: tuple[str, ...] = field(default=(), metadata={"dynamic": True})
    """Which keys are `auto` still; each has its default until the run chooses."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
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
        """Raises UserError for a number that means nothing, or for views that the method does not take;
        `optim` is checked where the images are known."""
        data, monitor, saving = self.data, self.monitor, self.checkpoint
        at_least("data.workers", data.workers, 0)
        self._require_own_folder()
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
        at_least("monitor.gradient_norms_every", monitor.gradient_norms_every, 0)
        at_least("log.every", self.log.every, 1)
        refuse_password(str(self.log.mlflow), "log.mlflow")
        if self.method.name not in METHODS:
            raise UserError(
                f"method.name {self.method.name!r} is not known: choose one of {', '.join(METHODS)}"
            )
        self.options.check(self.optim.batch_size)
        self.adapt.check(self.backbone.weights, self.optim.epochs, monitor.knn_every)
        self._require_views_that_the_method_takes()
        if getattr(self.options, "projector_pca", "none") == "refit" and self.optim.lookahead is not None:
            raise UserError(
                "simsiam_variants.projector_pca refit turns the directions of the projector's factors, and "
                "the slow weights of optim.lookahead keep the old ones: take start, or leave one of them out"
            )

    def _require_views_that_the_method_takes(self) -> None:
        """Refuses more than two views, and mixed ones, where the method has no targets for them."""
        method, recipe = METHODS[self.method.name], self.views.build()
        if len(recipe.views) > 2 and not method.multi_crop:
            takers = ", ".join(name for name in METHODS if METHODS[name].multi_crop)
            raise UserError(
                f"views.recipe {self.views.recipe} makes {len(recipe.views)} views of an image and "
                f"{self.method.name} takes two: choose a recipe of two, or one of the methods {takers}"
            )
        if recipe.mix is not None and not method.mixes:
            takers = ", ".join(name for name in METHODS if METHODS[name].mixes)
            raise UserError(
                f"views.mix {recipe.mix.kind}: {self.method.name} has no target for a mixture of two images; "
                f"leave it out, or choose one of the methods {takers}"
            )

    def _require_own_folder(self) -> None:
        """Refuses a folder of the run that is the folder of the images, whose files would be mixed."""
        root, folder = self.data.root, self.run.dir
        if root and Path(root).expanduser().resolve() == Path(folder).resolve():
            raise UserError(
                f"run.dir {printable(folder)} is the folder of the images, which stays as it is; give the "
                "run a folder of its own, such as --run.dir runs/mine"
            )

    def as_dict(self) -> dict[str, Any]:
        """Plain nested dicts, as checkpoints and records hold them; the options under the method's
        section, and `auto` for what is undecided."""
        tree: dict[str, Any] = {}
        for each in dataclasses.fields(PretrainConfig):
            if each.name == "method_options":
                tree[section_of(self.method.name)] = dataclasses.asdict(self.options)
            elif not each.metadata.get("dynamic"):
                tree[each.name] = dataclasses.asdict(getattr(self, each.name))
        tree["backbone"] = dataclasses.asdict(self.backbone.completed())
        for key in self.undecided:
            section, name = key.split(".")
            tree[section][name] = AUTO
        return tree

    def decide(self, values: Mapping[str, Any]) -> None:
        """Sets keys that are undecided."""
        for key, value in values.items():
            assert key in self.undecided, f"{key} is decided"
            section, name = key.split(".")
            setattr(getattr(self, section), name, value)
        self.undecided = tuple(key for key in self.undecided if key not in values)

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
        undecided = tuple(key for key in cls.auto if values.get(key) == AUTO)
        values = {key: value for key, value in values.items() if key not in undecided}
        config = build(cls, values)
        config.undecided = undecided
        config.backbone = config.backbone.completed()
        kind = METHODS[config.method.name].Config
        config.method_options = build(kind, values, prefix=f"{section_of(config.method.name)}.")
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
        return (
            "A method's own options are in the section of its name: --help METHOD lists them. The run itself "
            "chooses what is auto, and says why."
        )


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
