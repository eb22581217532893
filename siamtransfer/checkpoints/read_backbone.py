"""The reader of backbones that every program uses.

`read_backbone(path)` recognises the format of a file (formats.py has the table) and explains every key: used,
dropped by a named rule, or an error. It never returns an incomplete backbone, and returns random weights only
for a source that names them (`random:resnet50`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from siamtransfer.backbones.architecture import Architecture, architecture_of
from siamtransfer.backbones.backbone import Backbone
from siamtransfer.backbones.names import FULL_WIDTH, RESNETS, Stem
from siamtransfer.checkpoints.baselines import RANDOM, TORCHVISION, build_untrained, find_torchvision_weights
from siamtransfer.checkpoints.containers import describe_content, read_content
from siamtransfer.checkpoints.file_format import IMAGENET, Format, Normalisation
from siamtransfer.checkpoints.formats import FORMATS, OWN
from siamtransfer.checkpoints.match_keys import (
    AVERAGE,
    MatchedKeys,
    Mismatch,
    MovingAverage,
    match_keys,
    resolve_average,
)
from siamtransfer.checkpoints.options import ReadingOptions
from siamtransfer.checkpoints.own_format import is_own, read_own
from siamtransfer.checkpoints.pickles import Inert
from siamtransfer.checkpoints.reading import ASSUMED, Fact, Reading
from siamtransfer.utils.errors import UserError


@dataclass(frozen=True, eq=False)
class ReadBackbone:
    """A complete backbone that was read from a file, and where it comes from.

    Attributes:
        path: the file, or the name of the baseline.
        state: the tensors by torchvision's (or timm's) names, on the CPU, in the order of the layers.
        architecture: the backbone without its weights; `architecture.build()` makes the module.
        format: name of the format that explains the file (formats.py), `siamtransfer` for our own.
        branch: which of the file's backbones this is (`teacher`, `key`, `ema` ...).
        branches: the names of all of them, this one first.
        reading: what is not in the tensors (normalisation, stride, padding ...), and how each is known.
        digest: SHA-256 of the tensors, see `digest_of`.
        used: number of the file's keys that became tensors of the state.
        dropped: number of the other keys by the rule that dropped them.
        meta: what else the file records: method, epochs, arch; of our own also config and progress.
    """

    path: str
    state: dict[str, Tensor]
    architecture: Architecture
    format: str
    branch: str
    branches: tuple[str, ...]
    reading: Reading
    digest: str
    used: int
    dropped: dict[str, int]
    meta: dict[str, Any]

    @property
    def name(self) -> str:
        """The backbone's name as `build_backbone` takes it."""
        return self.architecture.name

    @property
    def width(self) -> int | None:
        """Channels of a ResNet's stem; None for timm's models."""
        return self.architecture.width

    @property
    def stem(self) -> Stem | None:
        """The first layers of a ResNet; None for timm's models."""
        return self.architecture.stem

    @property
    def normalisation(self) -> Normalisation:
        """Mean and std of the images in pretraining; later images need the same."""
        return self.reading.normalisation.value

    @property
    def parameters(self) -> int:
        """Number of trainable parameters."""
        buffers = ("running_mean", "running_var", "num_batches_tracked")
        return sum(tensor.numel() for name, tensor in self.state.items() if not name.endswith(buffers))

    def summary(self) -> str:
        """One line of text: what was read, and how many keys of the file were left out."""
        left_out = ", ".join(f"{count} {rule}" for rule, count in self.dropped.items()) or "nothing"
        width = "" if self.width is None else f" of width {self.width}"
        branch = f", branch {self.branch} of {', '.join(self.branches)}" if len(self.branches) > 1 else ""
        return (
            f"{self.path}: {self.format}{branch}, {self.name}{width}, {self.used} tensors used, "
            f"left out: {left_out}"
        )


def read_backbone(
    path: str | Path,
    *,
    branch: str | None = None,
    trust_pickle: bool = False,
    options: ReadingOptions | None = None,
) -> ReadBackbone:
    """Reads the backbone of a checkpoint file of any known format, or a baseline by its name.

    Args:
        path: a file, `random:resnet50` or `torchvision:resnet50` (baselines.py has their options).
        branch: one of several backbones in the file (student, teacher, query, key ...); by default the one
            that the method's authors evaluate.
        trust_pickle: let the file run Python code while it is loaded.
        options: what the user says about the network beyond the file.

    Raises:
        UserError: the file is damaged or no checkpoint, of no known format, or lacks, adds or misshapes a
            tensor, or has no such branch; says which.
    """
    if str(path).startswith(RANDOM):
        return _read_untrained(str(path))
    if str(path).startswith(TORCHVISION):
        return _read_supervised(str(path), branch, trust_pickle)
    content = read_content(Path(path), trust_pickle=trust_pickle)
    try:
        if is_own(content):
            return _read_own(content, str(path), branch)
        return _read_public(content, str(path), branch)
    except UserError as error:
        raise UserError(f"{path} {error}") from error


def load_backbone(
    path: str | Path,
    *,
    branch: str | None = None,
    trust_pickle: bool = False,
    options: ReadingOptions | None = None,
) -> tuple[Backbone, ReadBackbone]:
    """Builds the backbone of a checkpoint, x[N, 3, H, W] to h[N, D], with its weights (float32, eval mode).

    The arguments and errors are those of `read_backbone`. The random state of the caller does not change.

    Returns:
        The module, and the record of what was read. Changes of the module do not reach `ReadBackbone.state`.
    """
    read = read_backbone(path, branch=branch, trust_pickle=trust_pickle, options=options)
    with torch.random.fork_rng(devices=[]):  # `build` draws weights, which are then replaced
        backbone = read.architecture.build()
    backbone.load_state_dict(read.state, strict=True)
    return backbone.eval(), read


def digest_of(state: Mapping[str, Tensor]) -> str:
    """SHA-256 in hex over names (sorted), dtypes, shapes and bytes: equal for equal weights in any file."""
    sha = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def _read_own(content: dict[str, Any], path: str, branch: str | None) -> ReadBackbone:
    """Reads a checkpoint of this program, by its own declaration."""
    own = read_own(content, branch)
    try:
        state = own.architecture.complete(own.keys.tensors)
    except (ValueError, UserError) as error:
        raise UserError(f"looks like {OWN.what}, but {error}") from error
    meta = _meta(OWN, content, kept=("config", "progress"))
    return _record(path, state, own.architecture, own.keys, OWN.name, own.normalisation, meta)


def _read_public(content: Any, path: str, branch: str | None) -> ReadBackbone:
    """Reads `content` as the first of FORMATS whose rules explain all of it."""
    mismatches: list[Mismatch] = []
    try:
        content, average = resolve_average(content, use=branch == AVERAGE)
    except Mismatch as mismatch:
        raise UserError(str(mismatch)) from mismatch
    for form in FORMATS:
        try:
            return _read_as(form, content, path, branch, average)
        except Mismatch as mismatch:
            mismatches.append(mismatch.with_traceback(None))  # the traceback would keep the content in memory
    closest = max(mismatches, key=lambda mismatch: mismatch.matched)
    raise UserError(str(closest) if closest.matched else describe_content(content))


def _read_as(
    form: Format, content: Any, path: str, branch: str | None, average: MovingAverage
) -> ReadBackbone:
    """Reads `content` as `form`.

    Raises:
        Mismatch: a key is not explained, or the trunk is not complete.
        UserError: there is no such branch.
    """
    keys = match_keys(form, content, branch, average)
    try:
        shapes = {name: tuple(tensor.shape) for name, tensor in keys.tensors.items()}
        architecture = form.adapt(architecture_of(shapes))
        state = architecture.complete(keys.tensors)
    except (ValueError, UserError) as error:
        raise Mismatch(f"looks like {form.what}, but {error}", keys.matched) from error
    return _record(path, state, architecture, keys, form.name, form.normalisation, _meta(form, content))


def _record(
    path: str,
    state: dict[str, Tensor],
    architecture: Architecture,
    keys: MatchedKeys,
    form: str,
    normalisation: Normalisation,
    meta: dict[str, Any],
) -> ReadBackbone:
    """The record of a backbone that was read from a file."""
    return ReadBackbone(
        path=path,
        state=state,
        architecture=architecture,
        format=form,
        branch=keys.branch,
        branches=keys.branches,
        reading=_first_reading(architecture, normalisation, form),
        digest=digest_of(state),
        used=len(keys.tensors),
        dropped=keys.dropped,
        meta=meta,
    )


_UNSTATED = ("torchvision", "timm", "prefixed", "detectron2", "mmselfsup", "patrickhua", "lightly")
"""Formats that fix nothing of a reading: many code bases write them."""


def _first_reading(architecture: Architecture, normalisation: Normalisation, form: str) -> Reading:
    """A reading whose facts come from the format or are assumed."""
    source = ASSUMED if form.startswith(_UNSTATED) else f"the format {form}"
    resnet = architecture.stem is not None
    bottleneck = resnet and RESNETS[architecture.name].bottleneck
    return Reading(
        normalisation=Fact(normalisation, source),
        channels=Fact("rgb", source),
        stride_in_1x1=Fact(False, source) if bottleneck else None,
        stem=Fact(str(architecture.stem), source) if resnet else None,
        output_stride=Fact(32, source) if resnet else None,
    )


def _meta(form: Format, content: dict[str, Any], kept: tuple[str, ...] = ()) -> dict[str, Any]:
    """What is recorded beside the tensors: numbers, texts, the entries `kept`, and of parsed arguments the
    architecture. `epochs` is the number of epochs of the training, where it is known."""
    meta: dict[str, Any] = {"method": form.method}
    only_tensors = all(isinstance(value, Tensor) for value in content.values())  # scalars are weights then
    for entry, value in content.items():
        if isinstance(value, Tensor) and value.ndim == 0 and not only_tensors:
            meta[entry] = value.item()
        elif isinstance(value, str | int | float) or entry in kept:
            meta[entry] = value
    arguments = content.get("args")
    if isinstance(arguments, Inert) and isinstance(arguments.state, dict):
        settings = {key: arguments.state.get(key) for key in ("arch", "epochs")}
        meta = {key: value for key, value in settings.items() if isinstance(value, str | int)} | meta
    for recorded in (meta.get("progress"), meta, content.get("meta")):  # ours, most scripts', MMEngine's
        if isinstance(recorded, dict) and isinstance(recorded.get("epoch"), int):
            return {**meta, "epochs": recorded["epoch"]}
    return meta


def _read_untrained(source: str) -> ReadBackbone:
    """The baseline `random:NAME`."""
    backbone, seed = build_untrained(source)
    state = backbone.state_dict()
    return ReadBackbone(
        path=source,
        state=state,
        architecture=Architecture.of(backbone),
        format="random",
        branch="model",
        branches=("model",),
        reading=_first_reading(Architecture.of(backbone), IMAGENET, "random"),
        digest=digest_of(state),
        used=0,
        dropped={},
        meta={"method": None, "seed": seed},
    )


def _read_supervised(source: str, branch: str | None, trust_pickle: bool) -> ReadBackbone:
    """The baseline `torchvision:NAME`, which has to be that architecture with its classifier."""
    name, file = find_torchvision_weights(source)
    read = read_backbone(file, branch=branch, trust_pickle=trust_pickle)
    exact = (read.format, read.architecture) == ("torchvision", Architecture(name, FULL_WIDTH, "imagenet"))
    if not exact or read.dropped != {"classifier": 2}:
        raise UserError(
            f"{source} has to be torchvision's {name} with its classifier, and the file is not: "
            f"{read.summary()}"
        )
    return read
