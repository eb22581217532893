"""Public checkpoint formats as a table, and the one reader of backbones for every program.

`read_backbone(path)` recognises the format by itself and accounts for every key: used, dropped by a rule
with a name, or an error. It never returns a part of a backbone, and never random weights that were not
asked for by name (`random:resnet50`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor

from siamtransfer.backbones import TIMM, Architecture, Backbone, Stem, architecture_of
from siamtransfer.checkpoint import FORMAT, VERSION
from siamtransfer.containers import read_content
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
        "the linear probe of SimSiam's official code, main_lincls.py",
        container=("state_dict",),
        drops={"fc.": "classifier"},
        beside=("optimizer",),
        needs=("best_acc1",),
    ),
    Format("torchvision", "a torchvision model's state_dict", drops={"fc.": "classifier"}),
)
WRAPPERS = ("module", "_orig_mod")  # of DataParallel and of torch.compile


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
    """Why a file is not of a certain format; `closeness` ranks the reasons when it is of none."""

    def __init__(self, closeness: int, reason: str):
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
    mismatches: list[Mismatch] = []
    for form in FORMATS:
        try:
            return _account(form, content, str(path))
        except Mismatch as mismatch:
            mismatches.append(mismatch)
    closest = max(mismatches, key=lambda mismatch: mismatch.closeness)
    reason = str(closest) if closest.closeness else _describe(content)
    raise UserError(f"{path} {reason}") from None


def load_backbone(path: str | Path) -> tuple[Backbone, ReadBackbone]:
    """The backbone of a checkpoint as a module in eval mode (float32), and the record of its reading."""
    read = read_backbone(path)
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
    """Reads `content` as `form`, every key of it; raises `Mismatch` when it is not of that format."""
    keys = _tensors_of(form, content)
    own = form is OWN
    if own:
        _check_own(content)
    state: dict[str, Tensor] = {}
    dropped: dict[str, int] = {}
    for key, tensor in keys.items():
        rule = next((rule for beginning, rule in form.drops.items() if key.startswith(beginning)), None)
        if rule is not None:
            dropped[rule] = dropped.get(rule, 0) + 1
        elif key.startswith(form.prefix):
            state[key.removeprefix(form.prefix)] = tensor
        else:
            raise Mismatch(1 + len(state), f"looks like {form.what}, but no rule explains its key {key!r}")
    if not state:
        raise Mismatch(len(dropped), f"looks like {form.what}, but holds heads only ({_counts(dropped)}), no backbone")
    strangers = [] if own else _unexplained_neighbours(form, content)
    if strangers:
        raise Mismatch(len(state), f"looks like {form.what}, but no rule explains its entry {strangers[0]!r}")
    architecture = _architecture(form, content, state)
    state = _complete(form, architecture, state)
    return ReadBackbone(
        path=path,
        state=state,
        name=architecture.name,
        width=architecture.width,
        stem=architecture.stem,
        format=form.name,
        normalisation=_normalisation(content) if own else form.normalisation,
        digest=digest_of(state),
        used=len(keys) - sum(dropped.values()),
        dropped=dropped,
        meta=_meta(form, content),
    )
