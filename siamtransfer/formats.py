"""Public checkpoint formats as a table, and the one reader of backbones for every program.

`read_backbone(path)` recognises the format by itself and accounts for every key: used, dropped by a rule
with a name, or an error. It never returns a part of a backbone, and never random weights that were not
asked for by name (`random:resnet50`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from siamtransfer.backbones import FULL_WIDTH, Architecture, Backbone, Stem, architecture_of, build_backbone
from siamtransfer.checkpoint import FORMAT, VERSION
from siamtransfer.containers import describe, holds_tensors, read_content, without_wrappers
from siamtransfer.errors import UserError


class Normalisation(NamedTuple):
    """What is subtracted from and divided into RGB images in [0, 1], per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Format:
    """One way in which a public code base stores a backbone.

    `container` leads from the top of the file to the dict of tensors, `prefix` stands before the backbone's
    names there (after `module.` and `_orig_mod.`, which are removed from every key), and `drops` gives each
    group of other keys, by its beginning, a name. `beside` names the entries next to the container that may
    hold tensors; `needs` those that must exist.
    """

    name: str
    what: str
    container: tuple[str, ...] = ()
    prefix: str = ""
    drops: Mapping[str, str] = field(default_factory=dict)
    beside: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    method: str | None = None
    normalisation: Normalisation = IMAGENET


OWN = Format(
    FORMAT,
    "a checkpoint of this program",
    container=("model",),
    prefix="backbone.",
    drops={"projector.": "projector", "predictor.": "predictor"},
    needs=("format", "version", "backbone", "normalisation"),
)
# The first entry that accounts for everything in a file is its format.
FORMATS = (
    OWN,
    Format(
        "simsiam",
        "SimSiam's official code, main_simsiam.py",
        container=("state_dict",),
        prefix="encoder.",
        drops={"encoder.fc.": "projector", "predictor.": "predictor"},
        beside=("optimizer",),
        method="simsiam",
    ),
    Format(
        "simsiam-linear",
        "the linear probe of SimSiam's official code (PyTorch's ImageNet example writes the same)",
        container=("state_dict",),
        drops={"fc.": "classifier"},
        beside=("optimizer",),
        needs=("best_acc1",),
    ),
    Format("torchvision", "a torchvision model's state_dict", drops={"fc.": "classifier"}),
)


@dataclass(frozen=True, eq=False)
class ReadBackbone:
    """A backbone as it was found in a file, complete, under torchvision's (or timm's) tensor names."""

    path: str
    state: dict[str, Tensor]
    name: str
    width: int | None
    stem: Stem | None
    format: str
    normalisation: Normalisation
    digest: str  # of the tensors, see `digest_of`
    used: int  # keys of the file that became tensors of the state
    dropped: dict[str, int]  # number of keys by the rule that dropped them
    meta: dict[str, Any]  # what else is recorded: method, epoch, arch, our own config and progress

    @property
    def architecture(self) -> Architecture:
        return Architecture(self.name, self.width, self.stem)


class Mismatch(Exception):
    """Why a file is not of a certain format; of several reasons the one with most trunk keys is told."""

    def __init__(self, reason: str, closeness: int = 0):
        super().__init__(reason)
        self.closeness = closeness


def read_backbone(path: str | Path) -> ReadBackbone:
    """Reads the backbone of a checkpoint file of any known format, or builds a named untrained baseline.

    Baselines: `random:resnet50`, with options as in `random:resnet18:width=32:stem=small:seed=1`.

    Raises:
        UserError: the file is damaged or no checkpoint, of no known format, or lacks, adds or misshapes a
            tensor; says which.
    """
    if str(path).startswith("random:"):
        return _random_baseline(str(path))
    content = read_content(Path(path))
    own = isinstance(content, dict) and content.get("format") == FORMAT
    mismatches: list[Mismatch] = []
    for form in [OWN] if own else [form for form in FORMATS if form is not OWN]:
        try:
            return _account(form, content, str(path))
        except Mismatch as mismatch:
            mismatches.append(mismatch.with_traceback(None))  # which would keep the whole content alive
    closest = max(mismatches, key=lambda mismatch: mismatch.closeness)
    raise UserError(f"{path} {closest if closest.closeness else describe(content)}")


def load_backbone(path: str | Path) -> tuple[Backbone, ReadBackbone]:
    """The backbone of a checkpoint as a module in eval mode (float32), and the record of its reading."""
    read = read_backbone(path)
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


def _account(form: Format, content: Any, path: str) -> ReadBackbone:
    """Reads `content` as `form`, every key of it; raises `Mismatch` when that is not possible."""
    keys = _tensors_of(form, content)
    state: dict[str, Tensor] = {}
    dropped: dict[str, int] = {}
    strangers = []
    for key, tensor in keys.items():
        rule = next((rule for beginning, rule in form.drops.items() if key.startswith(beginning)), None)
        if rule is not None:
            dropped[rule] = dropped.get(rule, 0) + 1
        elif key.startswith(form.prefix):
            state[key.removeprefix(form.prefix)] = tensor
        else:
            strangers.append(key)
    trunk = len(state) if form is OWN else sum(bool(_TRUNK.match(name)) for name in state)
    if trunk == 0:
        heads = ", ".join(f"{rule}: {count}" for rule, count in dropped.items())
        raise Mismatch(
            f"looks like {form.what}, but holds only heads ({heads} tensors), no backbone", len(dropped)
        )
    strangers += _unexplained_neighbours(form, content)
    if strangers:
        raise Mismatch(f"looks like {form.what}, but no rule explains its key {strangers[0]!r}", trunk)
    try:
        architecture = _recorded_architecture(content) if form is OWN else architecture_of(_shapes(state))
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
        normalisation=normalisation,
        digest=digest_of(complete),
        used=len(state),
        dropped=dropped,
        meta=_meta(form, content),
    )


def _tensors_of(form: Format, content: Any) -> dict[str, Tensor]:
    """The dict of tensors at the format's place, without the wrappers' words in its keys."""
    missing = [entry for entry in form.needs if not isinstance(content, dict) or entry not in content]
    if missing:
        raise Mismatch(f"looks like {form.what}, but lacks its entry {missing[0]!r}", int(form is OWN))
    if form is OWN and content["version"] != VERSION:
        raise Mismatch(
            f"was written by another version of siamtransfer ({content['version']}): update to read it", 1
        )
    tensors = content
    for entry in form.container:
        tensors = tensors.get(entry) if isinstance(tensors, dict) else None
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise Mismatch(f"has no dict of tensors where {form.what} has it", int(form is OWN))
    bare = {without_wrappers(str(key)): tensor for key, tensor in tensors.items()}
    if len(bare) < len(tensors):
        raise Mismatch(
            "holds some tensors twice, with and without the prefix of a wrapper such as module.", 1
        )
    return bare


def _unexplained_neighbours(form: Format, content: dict[str, Any]) -> list[str]:
    """Entries beside the container that hold tensors although the format knows of none there."""
    if form is OWN or not form.container:
        return []
    known = {form.container[0], *form.beside}
    return [str(entry) for entry, value in content.items() if entry not in known and holds_tensors(value)]


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _recorded_architecture(content: dict[str, Any]) -> Architecture:
    recorded = content["backbone"]
    match recorded:
        case {"name": str(name), "width": None | int() as width, "stem": None | "imagenet" | "small" as stem}:
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
        if isinstance(value, Tensor) and value.ndim == 0 and form.container:
            meta[entry] = value.item()
        elif isinstance(value, str | int | float) or (form is OWN and entry in ("config", "progress")):
            meta[entry] = value
    epochs = meta.get("progress", meta).get("epoch")
    return meta if epochs is None else {**meta, "epochs": epochs}


_TRUNK = re.compile(r"(conv1|bn1|layer[1-4])\.")


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
        normalisation=IMAGENET,
        digest=digest_of(state),
        used=0,
        dropped={},
        meta={"method": None, "seed": int(seed)},
    )
