"""The format of this program's own checkpoints: reading them, and refusing to write what could not be read.

A file with an entry "keys" is read by this declaration (see declaration.py). A file without one was written
before the declaration existed, and is read by the list of names in formats.OWN.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.checkpoints.declaration import (
    FORMAT,
    KEYS,
    VERSION,
    VERSION_OF_CHOICES,
    Declaration,
    first_word,
    read_declaration,
)
from siamtransfer.checkpoints.file_format import Normalisation
from siamtransfer.checkpoints.formats import OWN
from siamtransfer.checkpoints.match_keys import (
    MatchedKeys,
    SortedKeys,
    only_heads,
    select_branch,
    sort_keys,
)
from siamtransfer.checkpoints.moving_average import MovingAverage
from siamtransfer.checkpoints.tensor_dicts import Mismatch, is_state_dict, unwrap_keys
from siamtransfer.checkpoints.wrappers import without_wrappers
from siamtransfer.utils.errors import UserError

DECLARED_HEAD = "head (declared)"
"""The rule that drops the keys of declared heads."""
_BESIDE_ARCHITECTURE = ("dim", "evaluated")
"""What the entry "backbone" of a checkpoint has besides the fields of an Architecture."""


class OwnCheckpoint(NamedTuple):
    """What a checkpoint of this program holds besides its training state."""

    keys: MatchedKeys
    architecture: Architecture
    normalisation: Normalisation


def is_own(content: Any) -> bool:
    """Whether a file's content is a checkpoint of this program."""
    return isinstance(content, dict) and content.get("format") == FORMAT


def read_own(content: Mapping[str, Any], branch: str | None) -> OwnCheckpoint:
    """The backbone of one of our checkpoints: `branch`, or else the one that its authors evaluate.

    Raises:
        UserError: a key is not explained, an entry is absent or not understood, or there is no such branch;
            the message is the rest of a sentence that begins with the file's name.
    """
    try:
        keys, evaluated = _sort(content)
        chosen = select_branch(keys, branch or evaluated, MovingAverage())
        entries = _entries_of(content, chosen.branch)
        return OwnCheckpoint(
            chosen,
            architecture := recorded_architecture(entries["backbone"]),
            _recorded_normalisation(entries["normalisation"], architecture.in_channels),
        )
    except Mismatch as mismatch:
        raise UserError(str(mismatch)) from mismatch
    except ValueError as error:
        raise UserError(f"looks like {OWN.what}, but {error}") from error


def check_readable(state: Mapping[str, Any]) -> None:
    """Raises UserError, which names the key, if `read_own` could not read the checkpoint `state`.

    `Checkpoints.save` calls it before it writes. Names and shapes of every branch are compared, no tensor is
    copied, and values are not looked at. A state without a declaration is not checked.
    """
    if KEYS not in state:
        return
    try:
        read_own(state, None)
        keys, _ = _sort(state)
        for branch, tensors in keys.branches.items():
            _compare_shapes(tensors, read_own(state, branch).architecture)
    except UserError as error:
        raise UserError(f"a checkpoint of this run could not be read back: it {error}") from error


def _entries_of(content: Mapping[str, Any], branch: str) -> Mapping[str, Any]:
    """What holds the entries "backbone" and "normalisation" of a branch: of the second column's, which may
    take other channels, the entry "second".

    Raises:
        ValueError: it is absent or not understood.
    """
    if branch != "second":
        return content
    entries = content.get("second")
    if not isinstance(entries, dict) or not {"backbone", "normalisation"} <= entries.keys():
        raise ValueError(f"its entry 'second' is not understood: {entries!r}")
    return entries


def _sort(content: Mapping[str, Any]) -> tuple[SortedKeys, str | None]:
    """The file's keys, of which none is unexpected, and the name of the evaluated branch."""
    evaluated: str | None
    missing = [entry for entry in OWN.needs if entry not in content]
    if missing:
        raise Mismatch(f"looks like {OWN.what}, but lacks its entry {missing[0]!r}")
    version = content["version"]
    if type(version) is not int or version not in (VERSION, VERSION_OF_CHOICES):
        raise Mismatch(f"was written by another version of siamtransfer ({version!r}): update to read it")
    if KEYS in content:
        declaration = read_declaration(content[KEYS])
        _refuse_contradiction(declaration, content["backbone"])
        keys = _sort_declared(declaration, content.get("model"))
        evaluated = next(iter(declaration.branches))
    else:
        keys = _sort_undeclared(content.get("model"))
        evaluated = _evaluated_before_declarations(content["backbone"])
    return keys, evaluated


def _refuse_contradiction(declaration: Declaration, backbone: Any) -> None:
    """The entry "backbone" may repeat which network is evaluated; the two have to agree."""
    recorded = backbone.get("evaluated") if isinstance(backbone, dict) else None
    if recorded not in (None, declaration.evaluated):
        raise ValueError(
            f"its entry 'keys' says that {declaration.evaluated!r} is evaluated, and its entry 'backbone' "
            f"names {recorded!r}"
        )


def _sort_declared(declaration: Declaration, model: Any) -> SortedKeys:
    """Sorts the keys by their first words, exactly as declared."""
    if not isinstance(model, dict) or not model:
        raise Mismatch(f"has no dict of tensors where {OWN.what} has it")
    keys = SortedKeys({name: {} for name in declaration.branches})
    for key, value in ((str(key), value) for key, value in model.items()):
        part = declaration.part_of(key)
        if part is None:
            raise ValueError(f"its entry 'keys' does not declare its key {key!r}")
        if part == "head":
            keys.dropped[DECLARED_HEAD] += 1
            continue
        if not isinstance(value, Tensor):
            raise ValueError(f"its key {key!r} of a backbone holds {type(value).__name__}, not a tensor")
        name = without_wrappers(key.removeprefix(f"{first_word(key)}."))
        if name in keys.branches[part]:
            raise Mismatch(
                "holds some tensors twice, with and without the prefix of a wrapper such as module."
            )
        keys.branches[part][name] = value
    words = {first_word(str(key)) for key in model}
    absent = sorted({*declaration.branches.values(), *declaration.heads} - words)
    if absent:
        raise ValueError(f"its entry 'keys' declares {absent[0]!r}, and it has no such key")
    return keys


def _sort_undeclared(model: Any) -> SortedKeys:
    """Sorts the keys of a file from before declarations by the rules of `OWN`."""
    if not is_state_dict(model):
        raise Mismatch(f"has no dict of tensors where {OWN.what} has it")
    keys = sort_keys(OWN, {("model",): unwrap_keys(model)})
    branches = {name: tensors for name, tensors in keys.branches.items() if tensors}
    if keys.unexpected:
        raise ValueError(f"no rule explains its key {keys.unexpected[0]!r}")
    if not branches:
        raise Mismatch(only_heads(OWN, keys.dropped))
    return SortedKeys(branches, keys.dropped)


def _evaluated_before_declarations(backbone: Any) -> str | None:
    """The branch that the method's authors evaluate, by the entry "backbone" of a file without declaration;
    None where it does not say."""
    if not isinstance(backbone, dict) or "evaluated" not in backbone:
        return None
    for name, branch in OWN.branches.items():
        if branch.prefix == f"{backbone['evaluated']}.":
            return name
    raise UserError(f"says that {backbone['evaluated']!r} is evaluated, and there is no such network")


def recorded_architecture(backbone: Any) -> Architecture:
    """The network that the entry "backbone" of a checkpoint records.

    Raises:
        ValueError: the entry is not understood; the message is the rest of a sentence that begins with the
            file's name.
    """
    if not isinstance(backbone, dict):
        raise ValueError(f"its entry 'backbone' is not understood: {backbone!r}")
    try:
        return Architecture.from_dict(
            {name: value for name, value in backbone.items() if name not in _BESIDE_ARCHITECTURE}
        )
    except ValueError as error:
        raise ValueError(f"its entry 'backbone' is not understood: {error}") from error


def record_architecture(architecture: Architecture) -> tuple[dict[str, Any], int]:
    """The entry "backbone" of a checkpoint, as far as the network makes it, and the file's version."""
    return architecture.as_dict(), VERSION_OF_CHOICES if architecture.hidden_choices else VERSION


def _recorded_normalisation(recorded: Any, channels: int) -> Normalisation:
    try:
        mean, std = (tuple(_number(value) for value in recorded[key]) for key in ("mean", "std"))
    except (TypeError, KeyError, ValueError, IndexError, OverflowError) as error:
        raise ValueError(f"its entry 'normalisation' is not understood: {recorded!r}") from error
    if len(mean) != channels or len(std) != channels or min(std) <= 0:
        raise ValueError(
            f"its normalisation does not give a mean and a positive std for each of {channels} channels: "
            f"{recorded!r}"
        )
    return Normalisation(mean, std)


def _number(value: Any) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no finite number")
    return float(value)


def _compare_shapes(tensors: Mapping[str, Tensor], architecture: Architecture) -> None:
    expected = _shapes(architecture)
    for name, tensor in tensors.items():
        if name not in expected:
            raise UserError(f"has a tensor {name!r}, which {architecture.name} has not")
        if tuple(tensor.shape) != expected[name]:
            raise UserError(
                f"has {name!r} of shape {tuple(tensor.shape)} where {architecture.name} has {expected[name]}"
            )
    for name in expected:
        if name not in tensors:
            raise UserError(f"lacks the tensor {name!r} of {architecture.name}")


@functools.cache
def _shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """`architecture.shapes()`, for which a timm model has to be built, once."""
    return architecture.shapes()
