"""The one reader of backbones for every program.

`read_backbone(path)` recognises a file's format by itself (the table is format_table.py) and accounts for
every key: used, dropped by a rule with a name, or an error. It never returns a part of a backbone, and never
random weights that were not asked for by name (`random:resnet50`).
"""

from __future__ import annotations

import argparse
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args

import torch
from torch import Tensor

from siamtransfer.backbones import FULL_WIDTH, Architecture, Backbone, Stem, architecture_of, build_backbone
from siamtransfer.checkpoint import FORMAT, VERSION
from siamtransfer.containers import describe, holds_tensors, read_content, without_wrappers
from siamtransfer.errors import UserError
from siamtransfer.format_table import (
    AVERAGES,
    FORMATS,
    IMAGENET,
    OWN,
    TRAINING,
    USUAL,
    Format,
    Normalisation,
    Place,
)
from siamtransfer.pickles import Inert

AVERAGE = "ema"  # the branch of a moving average of all weights


@dataclass(frozen=True, eq=False)
class ReadBackbone:
    """A backbone as it was found in a file, complete, under torchvision's (or timm's) tensor names."""

    path: str
    state: dict[str, Tensor]
    name: str
    width: int | None
    stem: Stem | None
    format: str
    branch: str  # which of the file's backbones this is
    branches: tuple[str, ...]  # and which there are
    normalisation: Normalisation
    digest: str  # of the tensors, see `digest_of`
    used: int  # keys of the file that became tensors of the state
    dropped: dict[str, int]  # number of keys by the rule that dropped them
    meta: dict[str, Any]  # what else is recorded: method, epoch, arch, our own config and progress

    @property
    def architecture(self) -> Architecture:
        return Architecture(self.name, self.width, self.stem)

    @property
    def parameters(self) -> int:
        """How many numbers training would move."""
        buffers = ("running_mean", "running_var", "num_batches_tracked")
        return sum(tensor.numel() for name, tensor in self.state.items() if not name.endswith(buffers))

    def summary(self) -> str:
        """One line for people: what was read, and what of the file was left out."""
        left_out = ", ".join(f"{count} {rule}" for rule, count in self.dropped.items()) or "nothing"
        width = "" if self.width is None else f" of width {self.width}"
        branch = f", branch {self.branch} of {', '.join(self.branches)}" if len(self.branches) > 1 else ""
        return (
            f"{self.path}: {self.format}{branch}, {self.name}{width}, {self.used} tensors used, "
            f"left out: {left_out}"
        )


class Mismatch(Exception):
    """Why a file is not of a certain format; of several reasons the one with most trunk keys is told."""

    def __init__(self, reason: str, closeness: int = 0):
        super().__init__(reason)
        self.closeness = closeness


def add_reader_arguments(parser: argparse.ArgumentParser) -> None:
    """What every program that reads a checkpoint takes: the file, and how to read it."""
    parser.add_argument("checkpoint", metavar="CKPT", help="a checkpoint of any known format, or random:NAME")
    parser.add_argument("--branch", help="which backbone of the file: student, teacher, key, ema ...")
    parser.add_argument(
        "--trust-pickle",
        action="store_true",
        help="let the file run Python code on loading; only for files of people you trust",
    )


def read_backbone(path: str | Path, *, branch: str | None = None, trust_pickle: bool = False) -> ReadBackbone:
    """Reads the backbone of a checkpoint file of any known format, or builds a named untrained baseline.

    Of several backbones in a file (student and teacher, query and key …) `branch` names one; without it the
    first of the format's table is taken. Baselines: `random:resnet50`, with options as in
    `random:resnet18:width=32:stem=small:seed=1`.

    Raises:
        UserError: the file is damaged or no checkpoint, of no known format, or lacks, adds or misshapes a
            tensor, or has no such branch; says which.
    """
    if str(path).startswith("random:"):
        return _random_baseline(str(path))
    content = read_content(Path(path), trust_pickle=trust_pickle)
    own = isinstance(content, dict) and content.get("format") == FORMAT
    average = Average()
    try:
        if not own:
            content, average = _settle_average(content, branch == AVERAGE)
    except Mismatch as mismatch:
        raise UserError(f"{path} {mismatch}") from mismatch
    mismatches: list[Mismatch] = []
    for form in [OWN] if own else [form for form in FORMATS if form is not OWN]:
        try:
            return _account(form, content, str(path), branch, average)
        except Mismatch as mismatch:
            mismatches.append(mismatch.with_traceback(None))  # which would keep the whole content alive
    closest = max(mismatches, key=lambda mismatch: mismatch.closeness)
    raise UserError(f"{path} {closest if closest.closeness else describe(content)}")


def load_backbone(
    path: str | Path, *, branch: str | None = None, trust_pickle: bool = False
) -> tuple[Backbone, ReadBackbone]:
    """The backbone of a checkpoint as a module in eval mode (float32), and the record of its reading."""
    read = read_backbone(path, branch=branch, trust_pickle=trust_pickle)
    with torch.random.fork_rng(devices=[]):  # the weights are replaced, the caller's random numbers stay
        backbone = read.architecture.build()
    backbone.load_state_dict(read.state, strict=True)
    return backbone.eval(), read


def digest_of(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names (sorted), dtypes, shapes and bytes: the same for equal weights in any file."""
    sha = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def _account(form: Format, content: Any, path: str, asked: str | None, average: Average) -> ReadBackbone:
    """Reads `content` as `form`, every key of it; raises `Mismatch` when that is not possible."""
    dicts = _tensors_of(form, content)
    found, dropped, strangers = _sort_keys(form, dicts)
    found = {name: _renamed(form, tensors) for name, tensors in found.items() if tensors}
    trunk = max((_closeness(form, tensors) for tensors in found.values()), default=0)
    if trunk == 0:
        heads = ", ".join(f"{rule}: {count}" for rule, count in dropped.items())
        raise Mismatch(
            f"looks like {form.what}, but holds only heads ({heads} tensors), no backbone", len(dropped)
        )
    strangers += _unexplained_neighbours(form, content, dicts)
    if strangers:
        raise Mismatch(f"looks like {form.what}, but no rule explains its key {strangers[0]!r}", trunk)

    averages = [AVERAGE] * bool(average.taken or average.left_out)
    branches = averages if average.taken and not average.left_out else [*found, *averages]
    branch = AVERAGE if average.taken else asked or branches[0]
    if branch not in branches:
        raise UserError(f"{path} has no branch {branch!r}: it has {', '.join(branches)} (--branch)")
    state = found.pop(branch if branch in found else next(iter(found)))
    dropped.update({f"branch {name}": len(others) for name, others in found.items()})
    if average.left_out:
        dropped["the weights that were averaged" if average.taken else "moving average"] += average.left_out
    try:
        architecture = (
            _recorded_architecture(content) if form is OWN else form.adapt(architecture_of(_shapes(state)))
        )
        complete = architecture.complete(state)
        normalisation = _recorded_normalisation(content) if form is OWN else form.normalisation
    except (ValueError, UserError) as error:
        raise Mismatch(f"looks like {form.what}, but {error}", trunk) from error
    return ReadBackbone(
        path=path,
        state=complete,
        name=architecture.name,
        width=architecture.width,
        stem=architecture.stem,
        format=form.name,
        branch=branch,
        branches=(branch, *(name for name in branches if name != branch)),
        normalisation=normalisation,
        digest=digest_of(complete),
        used=len(state),
        dropped=dict(dropped),
        meta=_meta(form, content),
    )


def _sort_keys(
    form: Format, dicts: Mapping[Place, dict[str, Tensor]]
) -> tuple[dict[str, dict[str, Tensor]], Counter[str], list[str]]:
    """Every key in one of three heaps: the tensors of each branch, how many each rule drops, and strangers.

    Where several beginnings fit a key the longest one decides, a rule before a branch.
    """
    found: dict[str, dict[str, Tensor]] = {name: {} for name in form.branches}
    dropped: Counter[str] = Counter()
    strangers: list[str] = []
    for place, tensors in dicts.items():
        prefixes = {name: b.prefix for name, b in form.branches.items() if b.place in (None, place)}
        for key, tensor in tensors.items():
            rule = max((begin for begin in form.drops if _begins(key, begin)), key=len, default="")
            names = [name for name, prefix in prefixes.items() if key.startswith(prefix)]
            name = max(names, key=lambda name: len(prefixes[name]), default=None)
            if rule and (name is None or len(rule) >= len(prefixes[name])):
                dropped[form.drops[rule]] += 1
            elif name is not None:
                found[name][key.removeprefix(prefixes[name])] = tensor
            else:
                strangers.append(key)
    return found, dropped, strangers


def _begins(key: str, beginning: str) -> bool:
    """Whether `beginning` is the first words of `key` (see Format.drops)."""
    rest = key.removeprefix(beginning)
    return key.startswith(beginning) and (beginning[-1] == "." or not rest or not rest[0].isalpha())


def _renamed(form: Format, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    try:
        renamed = {form.rename(name): tensor for name, tensor in tensors.items()}
    except ValueError as error:
        raise Mismatch(f"looks like {form.what}, but {error}") from error
    if len(renamed) < len(tensors):
        raise Mismatch(f"looks like {form.what}, but holds some tensors twice under different names", 1)
    return renamed


def _closeness(form: Format, tensors: Iterable[str]) -> int:
    names = list(tensors)
    return len(names) if form is OWN else sum(bool(_TRUNK.match(name)) for name in names)


def _tensors_of(form: Format, content: Any) -> dict[Place, dict[str, Tensor]]:
    """The dicts of tensors at the format's places, without the wrappers' words in their keys."""
    missing = [entry for entry in form.needs if not isinstance(content, dict) or entry not in content]
    if missing:
        raise Mismatch(f"looks like {form.what}, but lacks its entry {missing[0]!r}", int(form is OWN))
    if form is OWN and content["version"] != VERSION:
        raise Mismatch(
            f"was written by another version of siamtransfer ({content['version']}): update to read it", 1
        )
    own_places = [branch.place for branch in form.branches.values() if branch.place is not None]
    found = [place for place in own_places or form.places if _is_state(_at(content, place))]
    if not found:
        raise Mismatch(f"has no dict of tensors where {form.what} has it", int(form is OWN))
    dicts = {place: _bare(_at(content, place)) for place in (found if own_places else found[:1])}
    keys = [key for tensors in dicts.values() for key in tensors]
    for mark in form.marks:
        if not any(key.startswith(tuple(mark.split("|"))) for key in keys):
            raise Mismatch(f"has no tensor called {mark.replace('|', ' or ')}... as {form.what} has")
    return dicts


def _at(content: Any, place: Place) -> Any:
    for entry in place:
        content = content.get(entry) if isinstance(content, dict) else None
    return content


def _is_state(value: Any) -> bool:
    return (
        isinstance(value, dict) and bool(value) and all(isinstance(item, Tensor) for item in value.values())
    )


def _bare(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under names without wrappers, and without a first word that is the model's own."""
    bare = {without_wrappers(str(key)): tensor for key, tensor in tensors.items()}
    if len(bare) < len(tensors):
        raise Mismatch(
            "holds some tensors twice, with and without the prefix of a wrapper such as module.", 1
        )
    for word in ("model.", "net.", "network."):
        if all(key.startswith(word) for key in bare):
            return _bare({key.removeprefix(word): tensor for key, tensor in bare.items()})
    return bare


class Average(NamedTuple):
    """What became of a moving average of all weights: whether it took their place, and how many tensors (its
    own, or theirs) were left out for that."""

    taken: bool = False
    left_out: int = 0


def _settle_average(content: Any, wanted: bool) -> tuple[Any, Average]:
    """Takes a moving average of all weights out of the file, or puts it in the weights' place if it is
    `wanted` or there are no others. An entry that is no copy of the weights stays, to be refused as a
    stranger."""
    if not isinstance(content, dict):
        return content, Average()
    home = next((place[0] for place in USUAL if place and _is_state(content.get(place[0]))), None)
    for entry in AVERAGES:
        average = content.get(entry)
        if isinstance(average, dict) and len(average) == 1:
            average = next(iter(average.values()))  # {"ema": {"module": ...}}
        if not _is_state(average):
            continue
        assert isinstance(average, dict)
        average = {key: tensor for key, tensor in average.items() if key != "n_averaged"}
        rest = {key: value for key, value in content.items() if key != entry}
        if home is None:
            return {**rest, "state_dict": average}, Average(taken=True)
        if _bare(average).keys() == _bare(content[home]).keys():
            return ({**rest, home: average} if wanted else rest), Average(wanted, len(average))
    return content, Average()


def _unexplained_neighbours(form: Format, content: Any, places: Iterable[Place]) -> list[str]:
    """Entries beside the way to the dicts that hold tensors although the format knows of none there."""
    if form is OWN:
        return []
    on_the_way = {place[: depth + 1] for place in places for depth in range(len(place))}
    strangers = []
    for parent in {way[:-1] for way in on_the_way}:
        for entry, value in _at(content, parent).items():
            explained = (*parent, entry) in on_the_way or entry in form.beside or entry in TRAINING
            if not explained and holds_tensors(value):
                strangers.append(str(entry))
    return strangers


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _recorded_architecture(content: dict[str, Any]) -> Architecture:
    recorded = content["backbone"]
    match recorded:
        case {"name": str(name), "width": None | int() as width, "stem": stem} if stem in (
            None,
            *get_args(Stem),
        ):
            return Architecture(name, width, stem)
    raise ValueError(f"its entry 'backbone' is not understood: {recorded!r}")


def _recorded_normalisation(content: dict[str, Any]) -> Normalisation:
    recorded = content["normalisation"]
    try:
        mean, std = (tuple(float(value) for value in recorded[key]) for key in ("mean", "std"))
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"its entry 'normalisation' is not understood: {recorded!r}") from error
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise ValueError(
            f"its normalisation does not give a mean and a positive std per RGB channel: {recorded!r}"
        )
    return Normalisation(mean, std)


def _meta(form: Format, content: dict[str, Any]) -> dict[str, Any]:
    """The numbers and texts recorded beside the tensors, and of our own files the plain dicts too."""
    meta: dict[str, Any] = {"method": form.method}
    for entry, value in content.items():
        if isinstance(value, Tensor) and value.ndim == 0 and not _is_state(content):
            meta[entry] = value.item()
        elif isinstance(value, str | int | float) or (form is OWN and entry in ("config", "progress")):
            meta[entry] = value
    settings = content.get("args")
    if isinstance(settings, Inert) and isinstance(settings.state, dict):
        recorded = {key: settings.state.get(key) for key in ("arch", "epochs")}
        meta = {key: value for key, value in recorded.items() if isinstance(value, str | int)} | meta
    kept = content.get("meta")
    for place in (meta.get("progress"), meta, kept if isinstance(kept, dict) else None):
        if isinstance(place, dict) and isinstance(place.get("epoch"), int):
            return {**meta, "epochs": place["epoch"]}
    return meta


_TRUNK = re.compile(r"(conv1|bn1|layer[1-4]|blocks|patch_embed)\.|(cls_token|pos_embed)$")


def _random_baseline(path: str) -> ReadBackbone:
    """An untrained backbone by name; `seed` (default 0) decides its weights."""
    words = path.removeprefix("random:").split(":")
    options = dict(word.split("=", 1) for word in words if "=" in word)
    name, seed = ":".join(word for word in words if "=" not in word), options.pop("seed", "0")
    width, stem = options.pop("width", str(FULL_WIDTH)), options.pop("stem", "imagenet")
    if options or not (seed.isdecimal() and width.isdecimal()):
        raise UserError(f"{path}: the options are width=NUMBER, stem=imagenet or small, and seed=NUMBER")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(seed))
        backbone = build_backbone(name, width=int(width), stem=cast(Stem, stem))
    state = backbone.state_dict()
    return ReadBackbone(
        path=path,
        state=state,
        name=backbone.name,
        width=backbone.width,
        stem=backbone.stem,
        format="random",
        branch="model",
        branches=("model",),
        normalisation=IMAGENET,
        digest=digest_of(state),
        used=0,
        dropped={},
        meta={"method": None, "seed": int(seed)},
    )
