"""Reads the backbone of somebody else's file: the format, the network, the tensors, and how to read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.backbones.identify import Identified
from siamtransfer.backbones.names import RESNETS, TIMM, TORCHVISION
from siamtransfer.backbones.timm import is_timm_model, pretrained_config, timm_name, vit_norm_eps
from siamtransfer.backbones.torchvision import torchvision_name
from siamtransfer.checkpoints.facts import AmbiguousReading, Facts, facts_from, join, resolve
from siamtransfer.checkpoints.file_format import Format
from siamtransfer.checkpoints.foreign_content import describe_content
from siamtransfer.checkpoints.hugging_face_formats import HUGGING_FACE
from siamtransfer.checkpoints.hugging_face_settings import ACTIVATIONS, refuse_unread_settings
from siamtransfer.checkpoints.match_formats import match_formats
from siamtransfer.checkpoints.match_keys import MatchedKeys
from siamtransfer.checkpoints.network_choices import with_choices
from siamtransfer.checkpoints.normalisation import Normalisation
from siamtransfer.checkpoints.open_clip_config import SOURCE as OPEN_CLIP_CONFIG
from siamtransfer.checkpoints.open_clip_config import activation_beside, tower_of_timm
from siamtransfer.checkpoints.pickles import as_plain
from siamtransfer.checkpoints.preprocessing import of_timm
from siamtransfer.checkpoints.reading import Fact, Reading
from siamtransfer.checkpoints.recorded_reading import RecordedReading
from siamtransfer.checkpoints.side_files import (
    OPEN_CLIP_FORMAT,
    NetworkSettings,
    facts_beside,
    facts_of_config_json,
    settings_beside,
)
from siamtransfer.checkpoints.stated_facts import facts_of_content, facts_of_positions
from siamtransfer.checkpoints.tensor_dicts import Mismatch
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say


@dataclass(frozen=True)
class PublicBackbone:
    """A backbone that was read: the format of its file, its keys, its network and its complete tensors."""

    form: Format
    keys: MatchedKeys
    architecture: Architecture
    state: dict[str, Tensor]
    reading: Reading


def read_public(content: Any, path: Path, branch: str | None, user: Facts) -> PublicBackbone:
    """Reads `content` as the first of FORMATS whose rules explain all of it.

    Args:
        content: of the file `path`.
        branch: which backbone of the file.
        user: what the user's flags say, the very network among it.

    Raises:
        UserError: the rest of a sentence that begins with the file's name.
    """
    named = _named(content, path, user)
    if named is None:
        return _read_unnamed(content, path, branch, user)
    try:
        network = _architecture(named.value)
    except UserError as error:
        if "architecture" in user:
            raise UserError(f"cannot be read as {named.value}: {error}") from error
        say(f"note: {path}: {named.source} names {named.value}, which is unknown here; it was not used")
        return _read_unnamed(content, path, branch, user)
    network = with_choices(network, content, path)
    try:
        return _read_named(content, path, branch, user, network, named)
    except Mismatch as mismatch:
        if "architecture" in user:
            raise UserError(f"is not {named.value}, as {named.source} says: it {mismatch}") from mismatch
        say(f"note: {path} is not {named.value}, as {named.source} says, so nothing of that was used")
        return _read_unnamed(content, path, branch, user, beside=False)


def read_recorded_backbone(
    content: Any, path: Path, branch: str | None, user: Facts, record: RecordedReading
) -> PublicBackbone:
    """Reads a file of our converters, whose record says what its network is and how it is to be read.

    Raises:
        UserError: the rest of a sentence that begins with the file's name.
    """
    try:
        form, keys, (architecture, *_), state = match_formats(content, branch, record.architecture)
    except Mismatch as mismatch:
        raise UserError(
            f"{mismatch}: it and {record.where}, which was written for a {record.architecture.name}, do not "
            "belong together"
        ) from mismatch
    if "channels" in user and user["channels"].value != record.reading.channels.value:
        raise UserError("was written for RGB: convert its source again, with --channels")
    stated = {name: fact for name, fact in record.reading.facts.items() if not fact.assumed}
    assumed = {name: fact for name, fact in record.reading.facts.items() if fact.assumed}
    architecture, reading = resolve(form, architecture, stated, user, fixed=assumed)
    return PublicBackbone(form, keys, architecture, state, reading)


def _read_unnamed(
    content: Any, path: Path, branch: str | None, user: Facts, *, beside: bool = True
) -> PublicBackbone:
    """Reads a file of which nothing names the very network."""
    try:
        form, keys, identified, state = match_formats(content, branch, None)
    except Mismatch as mismatch:
        raise UserError(str(mismatch) if mismatch.matched else describe_content(content)) from mismatch
    if form.name == HUGGING_FACE:
        refuse_unread_settings(path)
        identified = _as_configured(identified, settings_beside(path))
    elif form.name == OPEN_CLIP_FORMAT:
        identified = _as_configured(identified, NetworkSettings(activation_beside(path)))
    _refuse_look_alikes(identified)
    architecture = identified.architecture
    facts = _stated(form, content, path, architecture, state, beside=beside)
    architecture, reading = resolve(form, architecture, facts, user)
    if architecture.stem is None:  # of ResNets the reading says so itself
        reading = replace(reading, look_alikes=identified.others)
    return PublicBackbone(form, keys, architecture, _to_rgb(state, architecture, reading), reading)


def _read_named(
    content: Any,
    path: Path,
    branch: str | None,
    user: Facts,
    network: Architecture,
    named: Fact[str],
) -> PublicBackbone:
    """Reads a file whose very network is named.

    Raises:
        Mismatch: the tensors are not those of that network.
    """
    usual = network.name in RESNETS
    form, keys, (architecture, *_), state = match_formats(content, branch, None if usual else network)
    if usual and (architecture.name, architecture.stem) != (network.name, "imagenet"):
        raise Mismatch(f"looks like {architecture.name} with the stem {architecture.stem}", keys.matched)
    fixed = facts_from(named.source, _facts_of_network(named.value, architecture))
    facts = _stated(form, content, path, architecture, state, beside=True)
    if "architecture" not in user:
        facts, fixed = join(facts, fixed), {}
    architecture, reading = resolve(form, architecture, facts, user, fixed=fixed)
    return PublicBackbone(form, keys, architecture, _to_rgb(state, architecture, reading), reading)


def _facts_of_network(name: str, architecture: Architecture) -> dict[str, Any]:
    """What the name of a timm or torchvision model says of how it is to be read."""
    facts: dict[str, Any] = {}
    if architecture.stem is not None:
        facts |= {"stem": architecture.stem, "output_stride": 32}
        facts |= {"stride_in_1x1": False} if RESNETS[architecture.name].bottleneck else {}
    if architecture.attention_heads is not None:
        facts["heads"] = architecture.attention_heads
    trained = pretrained_config(name)
    if trained is not None:
        facts |= {"normalisation": Normalisation(trained["mean"], trained["std"]), "channels": "rgb"}
        preprocessing = of_timm(trained)
        facts |= {"preprocessing": preprocessing} if preprocessing else {}
    return facts


def _stated(
    form: Format,
    content: Any,
    path: Path,
    architecture: Architecture,
    state: Mapping[str, Tensor],
    *,
    beside: bool,
) -> Facts:
    """Everything that the file and the files beside it state."""
    facts = facts_of_content(form, content, architecture)
    facts = join(facts, facts_of_positions(state, architecture))
    if beside:
        facts = join(facts, facts_beside(form, path, architecture))
    facts.pop("architecture", None)
    return facts


def _named(content: Any, path: Path, user: Facts) -> Fact[str] | None:
    """The very network, by the user, by the file's `arch` where that is a model of timm, or by config.json
    or open_clip_config.json beside the file."""
    if "architecture" in user:
        return user["architecture"]
    if isinstance(content, dict):
        arguments = as_plain(content.get("args"))
        settings = arguments if isinstance(arguments, dict) else {}
        for arch in (content.get("arch"), settings.get("model")):
            if isinstance(arch, str) and arch not in RESNETS and is_timm_model(arch):
                return Fact(arch, "arch in the file")
    stated: Fact[str] | None = facts_of_config_json(path, quiet=True).get("architecture")
    if stated is None and (tower := tower_of_timm(path)) is not None:
        return Fact(TIMM + tower.name, OPEN_CLIP_CONFIG)
    return stated


def _architecture(name: str) -> Architecture:
    """The network of a name; one of torchvision's ResNets where torchvision and timm have the same."""
    if name.startswith(TORCHVISION) and name.removeprefix(TORCHVISION) not in RESNETS:
        return Architecture(torchvision_name(name))
    name = name.removeprefix(TORCHVISION)
    bare = name.removeprefix(TIMM).partition(".")[0]
    return Architecture(bare if bare in RESNETS else timm_name(name))


def _as_configured(identified: Identified, settings: NetworkSettings) -> Identified:
    """The network with the activation and the epsilon of its norms that Hugging Face's config.json states."""
    activation, eps = settings.activation, settings.norm_eps
    if activation is not None:
        identified = identified.decided(lambda name: ("quickgelu" in name) == (activation == "quick_gelu"))
    architecture = identified.architecture
    usual_eps = vit_norm_eps(architecture.name)
    if usual_eps is not None:
        known = None if "quickgelu" in architecture.name else ACTIVATIONS.get(activation or "")
        architecture = architecture._replace(activation=known, norm_eps=None if eps == usual_eps else eps)
    return identified._replace(architecture=architecture)


def _refuse_look_alikes(identified: Identified) -> None:
    """Refuses a network that is not the usual one of several with these tensors.

    Raises:
        AmbiguousReading: the rest of a sentence that begins with the file's name.
    """
    if identified.others and not identified.usual:
        names = (identified.architecture.name, *identified.others)
        raise AmbiguousReading(
            f"holds tensors that {' and '.join(names)} have, which compute different features from them, and "
            f"nothing says which it is: say {' or '.join(f'--architecture {name}' for name in names)}"
        )


def _to_rgb(state: dict[str, Tensor], architecture: Architecture, reading: Reading) -> dict[str, Tensor]:
    """The tensors of a network that takes RGB: those of one that took BGR with its first layer reversed."""
    if reading.channels.value != "bgr":
        return state
    first = "conv1.weight" if architecture.name in RESNETS else None
    for name, tensor in state.items():
        if (first is None and tensor.ndim == 4 and tensor.shape[1] == 3) or name == first:
            return state | {name: torch.flip(tensor, (1,)).contiguous()}
    raise UserError(f"takes its channels in the order BGR, and {architecture.name} has no first convolution")
