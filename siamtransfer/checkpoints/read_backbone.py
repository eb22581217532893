"""The reader of backbones that every program uses.

`read_backbone(path)` recognises the format of a file (formats.py has the table) and explains every key: used,
dropped by a named rule, or an error. It never returns an incomplete backbone, and returns random weights only
for a source that names them (`random:resnet50`).
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.backbones.backbone import Backbone
from siamtransfer.backbones.filled import build_filled
from siamtransfer.backbones.names import FULL_WIDTH, RESNETS, TIMM, TORCHVISION, Stem
from siamtransfer.checkpoints.baselines import (
    RANDOM,
    build_untrained,
    find_torchvision_weights,
    torchvision_normalisation,
)
from siamtransfer.checkpoints.channel_facts import RGB_CHANNELS, assumed_normalisation
from siamtransfer.checkpoints.containers import OpenedFile, open_file
from siamtransfer.checkpoints.facts import Facts, facts_of_own, facts_of_user, resolve, without_architecture
from siamtransfer.checkpoints.file_values import as_float32, meta_of
from siamtransfer.checkpoints.folders import weights_in_folder
from siamtransfer.checkpoints.foreign_content import describe_unreadable
from siamtransfer.checkpoints.formats import OWN
from siamtransfer.checkpoints.match_keys import MatchedKeys
from siamtransfer.checkpoints.normalisation import IMAGENET, Normalisation
from siamtransfer.checkpoints.open_clip_weights import find_open_clip_weights
from siamtransfer.checkpoints.options import HF, OPEN_CLIP, ReaderOptions, ReadingOptions
from siamtransfer.checkpoints.own_format import is_own, read_own
from siamtransfer.checkpoints.read_public import read_public, read_recorded_backbone
from siamtransfer.checkpoints.reading import Fact, Reading
from siamtransfer.checkpoints.recorded_reading import read_recorded
from siamtransfer.checkpoints.tensor_kinds import describe_kind, describe_repeated
from siamtransfer.checkpoints.timm_weights import find_timm_weights
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.regular_files import refuse_special
from siamtransfer.utils.text import sentence
from siamtransfer.utils.unexpected import HINT, is_lack_of_memory, keeps_traceback

_OF_VALUES = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError)


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
        path: a file, a folder of Hugging Face (with or without `hf:` before it), `random:resnet50`,
            `torchvision:resnet50` (baselines.py has their options), `timm:NAME` (timm_weights.py),
            `openclip:FOLDER` or `openclip:NAME=FILE` (open_clip_weights.py).
        branch: one of several backbones in the file (student, teacher, query, key ...); by default the one
            that the method's authors evaluate.
        trust_pickle: let the file run Python code while it is loaded.
        options: what the user says about the network beyond the file.

    Raises:
        AmbiguousReading: two readings of the file are both common and give different numbers (see facts.py);
            says with which options.
        UserError: the file is damaged or no checkpoint, of no known format, or lacks, adds or misshapes a
            tensor, or has no such branch; says which.
    """
    if str(path).startswith(RANDOM):
        return _read_untrained(str(path), facts_of_user(options))
    if str(path).startswith(TORCHVISION):
        return _read_supervised(str(path), branch, trust_pickle, facts_of_user(options))
    if str(path).startswith(TIMM):
        download = isinstance(options, ReaderOptions) and options.download
        return _read_timm(str(path), branch, trust_pickle, facts_of_user(options), download=download)
    if str(path).startswith(OPEN_CLIP):
        return _read_open_clip(str(path), branch, trust_pickle, facts_of_user(options))
    return _read_file(Path(str(path).removeprefix(HF)), branch, trust_pickle, facts_of_user(options))


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
        The module, and the record of what was read, whose `state` has the module's own memory: a training of
        the module changes both.
    """
    read = read_backbone(path, branch=branch, trust_pickle=trust_pickle, options=options)
    return build_filled(read.architecture, read.state), read


def digest_of(state: Mapping[str, Tensor]) -> str:
    """SHA-256 in hex over names (sorted), dtypes, shapes and bytes: equal for equal weights in any file."""
    sha = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def _read_file(path: Path, branch: str | None, trust_pickle: bool, user: Facts) -> ReadBackbone:
    """Reads a file, or the one in a folder; `user` is what the user's flags say about it."""
    refuse_special(path)
    if path.is_dir():
        path = weights_in_folder(path)
    opened = open_file(path, trust_pickle=trust_pickle)
    content = opened.content
    if is_own(content):
        with _naming(path):
            return _read_own(opened, str(path), branch, user)
    record = read_recorded(path)
    with _naming(path):
        unreadable = describe_unreadable(content)
        if unreadable is not None:
            raise UserError(unreadable)
        if record is None:
            public = read_public(content, path, branch, user)
        else:
            public = read_recorded_backbone(content, path, branch, user, record)
        meta = meta_of(public.form, content)
        state = as_float32(public.state, copy=opened.mapped)
        read = _record(
            str(path), state, public.architecture, public.keys, public.form.name, public.reading, meta
        )
        if record is not None:
            record.require_weights(read.digest)
        return read


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Completes the sentence of a UserError by the file's name.

    No file is known of which another error comes, and one would be a defect here. A user gets a sentence all
    the same, which says how to see the place; the tests of odd files keep the traceback. Where memory is
    lacking, the file is not blamed.
    """
    try:
        yield
    except UserError as error:
        raise type(error)(sentence(f"{path} {error}")) from error
    except _OF_VALUES as error:
        if keeps_traceback() or is_lack_of_memory(error):
            raise
        reason = (str(error).strip() or "no reason given").splitlines()[0][:100]
        said = f"{type(error).__name__}: {reason}"
        raise UserError(
            sentence(
                f"{path} cannot be read, by its values or by a defect here ({said}): "
                f"save its tensors alone, as torch.save(model.state_dict(), ...); {HINT}"
            )
        ) from error


def _read_own(opened: OpenedFile, path: str, branch: str | None, user: Facts) -> ReadBackbone:
    """Reads a checkpoint of this program, by its own declaration."""
    content = opened.content
    own = read_own(content, branch)
    for name, tensor in own.keys.tensors.items():
        unreadable = describe_kind(name, tensor)
        if unreadable is not None:
            raise UserError(unreadable)
    repeated = describe_repeated(own.keys.tensors.items())
    if repeated is not None:
        raise UserError(repeated)
    try:
        state = own.architecture.complete(own.keys.tensors)
    except (ValueError, UserError) as error:
        raise UserError(f"looks like {OWN.what}, but {error}") from error
    facts = facts_of_own(own.architecture, own.normalisation, "the file's own record")
    _, reading = resolve(OWN, own.architecture, facts, without_architecture(user, own.architecture))
    meta = meta_of(OWN, content, kept=("config", "progress"))
    state = as_float32(state, copy=opened.mapped)
    return _record(path, state, own.architecture, own.keys, OWN.name, reading, meta)


def _record(
    path: str,
    state: dict[str, Tensor],
    architecture: Architecture,
    keys: MatchedKeys,
    form: str,
    reading: Reading,
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
        reading=reading,
        digest=digest_of(state),
        used=len(keys.tensors),
        dropped=keys.dropped,
        meta=meta,
    )


def _read_untrained(source: str, user: Facts) -> ReadBackbone:
    """The baseline `random:NAME`."""
    backbone, seed = build_untrained(source)
    state = backbone.state_dict()
    architecture = Architecture.of(backbone)
    channels = architecture.in_channels
    usual = IMAGENET if channels == RGB_CHANNELS else assumed_normalisation(channels)
    normalisation = user.get("normalisation", Fact(usual, "the baseline"))
    facts = facts_of_own(architecture, normalisation.value, "the baseline")
    with _naming(Path(source)):
        _, reading = resolve(OWN, architecture, facts, without_architecture(user, architecture))
    return ReadBackbone(
        path=source,
        state=state,
        architecture=architecture,
        format="random",
        branch="model",
        branches=("model",),
        reading=reading,
        digest=digest_of(state),
        used=0,
        dropped={},
        meta={"method": None, "seed": seed},
    )


def _read_supervised(source: str, branch: str | None, trust_pickle: bool, user: Facts) -> ReadBackbone:
    """The baseline `torchvision:NAME`, which has to be that architecture with its classifier."""
    name, file = find_torchvision_weights(source)
    architecture = (
        Architecture(name, FULL_WIDTH, "imagenet") if name in RESNETS else Architecture(TORCHVISION + name)
    )
    stated = facts_of_own(
        architecture, torchvision_normalisation(name, file), f"torchvision's weights of {name}"
    )
    named: Facts = {} if name in RESNETS else {"architecture": Fact(architecture.name, "the name")}
    read = _read_file(file, branch, trust_pickle, named)
    exact = (read.format, read.architecture) == ("torchvision", architecture)
    if not exact or set(read.dropped) != {"classifier"}:
        raise UserError(
            f"{source} has to be torchvision's {name} with its classifier, and the file is not: "
            f"{read.summary()}"
        )
    with _naming(Path(source)):
        _, reading = resolve(OWN, architecture, stated, without_architecture(user, architecture))
    return replace(read, reading=reading)


def _read_open_clip(source: str, branch: str | None, trust_pickle: bool, user: Facts) -> ReadBackbone:
    """Weights of open_clip by name."""
    path, network = find_open_clip_weights(source)
    if network is None:
        return _read_file(path, branch, trust_pickle, user)
    if "architecture" in user:
        raise UserError(f"{source} names the network itself: leave {user['architecture'].source} out")
    named = {"architecture": Fact(network, f"the name {source.partition('=')[0]}")}
    return _read_file(path, branch, trust_pickle, user | named)


def _read_timm(
    source: str, branch: str | None, trust_pickle: bool, user: Facts, download: bool
) -> ReadBackbone:
    """The baseline `timm:NAME`: timm's weights of that network."""
    weights = find_timm_weights(source, download=download)
    if "architecture" in user:
        raise UserError(f"{source} names the network itself: leave {user['architecture'].source} out")
    named = {"architecture": Fact(weights.name, f"the name {weights.name}")}
    return _read_file(weights.file, branch, trust_pickle, user | named)
