"""The one reader of backbones for every program.

`read_backbone(path)` recognises a file's format by itself (the table is format_table.py) and accounts for
every key: used, dropped by a rule with a name, or an error. It never returns a part of a backbone, and never
random weights that were not asked for by name (`random:resnet50`).
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from siamtransfer.backbones.architecture import FULL_WIDTH, Architecture, Backbone, Stem, architecture_of
from siamtransfer.checkpoints.baselines import RANDOM, TORCHVISION, build_untrained, find_published
from siamtransfer.checkpoints.containers import describe, read_content
from siamtransfer.checkpoints.formats import FORMATS, IMAGENET, OWN, Format, Normalisation
from siamtransfer.checkpoints.match_keys import AVERAGE, Average, Mismatch, account, settle_average
from siamtransfer.checkpoints.pickles import Inert
from siamtransfer.checkpoints.training_state import FORMAT
from siamtransfer.utils.errors import UserError


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


def add_reader_arguments(parser: argparse.ArgumentParser) -> None:
    """What every program that reads a checkpoint takes: the file, and how to read it."""
    parser.add_argument(
        "checkpoint",
        metavar="CKPT",
        help="a checkpoint of any known format, random:NAME, or torchvision:NAME (supervised weights)",
    )
    parser.add_argument("--branch", help="which backbone of the file: student, teacher, key, ema ...")
    parser.add_argument(
        "--trust-pickle",
        action="store_true",
        help="let the file run Python code on loading; only for files of people you trust",
    )


def read_backbone(path: str | Path, *, branch: str | None = None, trust_pickle: bool = False) -> ReadBackbone:
    """Reads the backbone of a checkpoint file of any known format, or a baseline by its name.

    Of several backbones in a file (student and teacher, query and key …) `branch` names one; without it the
    one that the method's authors evaluate is taken, the first of the format's table. Baselines are
    `random:resnet50` and `torchvision:resnet50`, with options as in baselines.py.

    Raises:
        UserError: the file is damaged or no checkpoint, of no known format, or lacks, adds or misshapes a
            tensor, or has no such branch; says which.
    """
    if str(path).startswith(RANDOM):
        return _untrained(str(path))
    if str(path).startswith(TORCHVISION):
        return _published(str(path), branch, trust_pickle)
    content = read_content(Path(path), trust_pickle=trust_pickle)
    own = isinstance(content, dict) and content.get("format") == FORMAT
    average = Average()
    try:
        if not own:
            content, average = settle_average(content, branch == AVERAGE)
    except Mismatch as mismatch:
        raise UserError(f"{path} {mismatch}") from mismatch
    mismatches: list[Mismatch] = []
    for form in [OWN] if own else [form for form in FORMATS if form is not OWN]:
        try:
            return _read_as(form, content, str(path), branch, average)
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


def _read_as(form: Format, content: Any, path: str, asked: str | None, average: Average) -> ReadBackbone:
    """Reads `content` as `form`; raises `Mismatch` when a key is not explained or the trunk is not
    complete."""
    try:
        found = account(form, content, asked or _evaluated(form, content), average)
    except UserError as error:
        raise UserError(f"{path} {error}") from error
    try:
        if form is OWN:
            architecture, normalisation = _recorded_architecture(content), _recorded_normalisation(content)
        else:
            shapes = {name: tuple(tensor.shape) for name, tensor in found.tensors.items()}
            architecture, normalisation = form.adapt(architecture_of(shapes)), form.normalisation
        state = architecture.complete(found.tensors)
    except (ValueError, UserError) as error:
        raise Mismatch(f"looks like {form.what}, but {error}", found.closeness) from error
    return ReadBackbone(
        path=path,
        state=state,
        name=architecture.name,
        width=architecture.width,
        stem=architecture.stem,
        format=form.name,
        branch=found.branch,
        branches=found.branches,
        normalisation=normalisation,
        digest=digest_of(state),
        used=len(found.tensors),
        dropped=found.dropped,
        meta=_meta(form, content),
    )


def _evaluated(form: Format, content: Any) -> str | None:
    """The branch that one of our own files says its method's authors evaluate; None where it does not say.

    Raises:
        UserError: it names a network that is none.
    """
    recorded = content.get("backbone") if form is OWN else None
    if not isinstance(recorded, dict) or "evaluated" not in recorded:
        return None
    for name, branch in form.branches.items():
        if branch.prefix == f"{recorded['evaluated']}.":
            return name
    raise UserError(f"says that {recorded['evaluated']!r} is evaluated, and there is no such network")


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
    flat = all(isinstance(value, Tensor) for value in content.values())  # whose scalars are weights
    for entry, value in content.items():
        if isinstance(value, Tensor) and value.ndim == 0 and not flat:
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


def _untrained(source: str) -> ReadBackbone:
    """The record of a baseline `random:NAME`."""
    backbone, seed = build_untrained(source)
    state = backbone.state_dict()
    return ReadBackbone(
        path=source,
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
        meta={"method": None, "seed": seed},
    )


def _published(source: str, branch: str | None, trust_pickle: bool) -> ReadBackbone:
    """The record of a baseline `torchvision:NAME`, which has to be that architecture with its classifier."""
    name, file = find_published(source)
    read = read_backbone(file, branch=branch, trust_pickle=trust_pickle)
    exact = (read.format, read.architecture) == ("torchvision", Architecture(name, FULL_WIDTH, "imagenet"))
    if not exact or read.dropped != {"classifier": 2}:
        raise UserError(
            f"{source} has to be torchvision's {name} with its classifier, and the file is not: "
            f"{read.summary()}"
        )
    return read
