"""Finds the format that explains a file, and the network that its tensors are of."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.backbones.identify import Identified, identify
from siamtransfer.backbones.names import RESNETS, TIMM, TORCHVISION
from siamtransfer.backbones.nearest import find_nearest
from siamtransfer.backbones.timm import classifier_names as timm_classifier_names
from siamtransfer.backbones.torchvision import classifier_names
from siamtransfer.checkpoints.file_format import USUAL_PATHS, Format
from siamtransfer.checkpoints.formats import FORMATS
from siamtransfer.checkpoints.match_keys import MatchedKeys, match_keys
from siamtransfer.checkpoints.moving_average import MovingAverage, resolve_average
from siamtransfer.checkpoints.tensor_dicts import Mismatch, Unknown, find_tensors
from siamtransfer.utils.errors import UserError

_PLAIN = "a state_dict"


class Matched(NamedTuple):
    """How a format explains a file: its keys, its network, and the network's complete tensors."""

    form: Format
    keys: MatchedKeys
    identified: Identified
    state: dict[str, Tensor]


def match_formats(content: Any, branch: str | None, network: Architecture | None) -> Matched:
    """The first format that explains the whole content; `network` where that is known beforehand.

    Raises:
        Mismatch: none does; the reason is that of the format that explains most keys.
    """
    content, average = resolve_average(content, branch)
    mismatches: list[Mismatch] = []
    for form, identified in _candidates(content, network):
        try:
            return _match_as(form, content, branch, average, identified)
        except Mismatch as mismatch:
            mismatches.append(mismatch.with_traceback(None))  # the traceback would keep the content in memory
    most = max(mismatches, key=lambda mismatch: mismatch.matched)
    raise most if network is not None else _with_nearest(most, content)


def _with_nearest(mismatch: Mismatch, content: Any) -> Mismatch:
    """The reason why a file is of no format; of tensors that are almost those of a known network what differs
    first."""
    unknown = mismatch.unknown or (_first_tensors(content) if mismatch.matched == 0 else None)
    if unknown is None:
        return mismatch
    nearest = find_nearest({name: tuple(tensor.shape) for name, tensor in unknown.tensors.items()})
    if nearest is None:
        return mismatch
    trunk = {name: tensor for name, tensor in unknown.tensors.items() if name not in nearest.head}
    try:
        nearest.architecture.complete(trunk)
    except ValueError as error:
        return Mismatch(f"looks like {unknown.what} ({nearest.architecture.name}), but {error}", 1)
    return mismatch


def _first_tensors(content: Any) -> Unknown | None:
    """The state_dict in one of the usual places; None where there is none."""
    for path in USUAL_PATHS:
        with contextlib.suppress(Mismatch):
            tensors = find_tensors(content, path)
            if tensors is not None:
                return Unknown(_PLAIN, tensors)
    return None


def _candidates(content: Any, network: Architecture | None) -> Iterator[tuple[Format, Identified | None]]:
    """The formats that may explain a file, with the network where that is known beforehand."""
    if network is None:
        yield from _library_formats(content)
    elif network.name not in RESNETS:
        yield _plain_format(network), Identified(network)
    for form in FORMATS:
        yield form, None if network is None else Identified(network)


def _library_formats(content: Any) -> Iterator[tuple[Format, Identified]]:
    """The state_dict of a network in the catalogue, with its classifier or without. FORMATS has an entry for
    the usual ResNets and ViTs."""
    for path in USUAL_PATHS:
        with contextlib.suppress(ValueError, Mismatch):
            tensors = find_tensors(content, path)
            if tensors is None:
                continue
            identified = identify({name: tuple(tensor.shape) for name, tensor in tensors.items()})
            library, colon, name = identified.architecture.name.partition(":")
            if colon and identified.architecture.shapes().keys() | identified.head == tensors.keys():
                drops = dict.fromkeys(identified.head, "classifier")
                yield Format(library, f"{library}'s {name}", drops=drops), identified


def _match_as(
    form: Format,
    content: Any,
    branch: str | None,
    average: MovingAverage,
    identified: Identified | None,
) -> Matched:
    """Raises Mismatch where a key is not explained or the trunk is not complete, UserError where there is no
    such branch."""
    trunk = identified.architecture.shapes().keys() if identified is not None else None
    keys = match_keys(form, content, branch, average, trunk)
    shapes = {name: tuple(tensor.shape) for name, tensor in keys.tensors.items()}
    try:
        if identified is None:
            identified = _identified(shapes)
            if form.networks:
                identified = identified.decided(lambda name: bool(re.search(form.networks, name)))
        else:
            identified = identified.with_channels_of(shapes)
        identified = identified.with_pool(form.pool).with_norm_eps(form.norm_eps)
        keys = keys.without(identified.head, "classifier")
        tensors = _with_counters(keys.tensors) if form.name == "detectron2" else keys.tensors
        state = identified.architecture.complete(tensors)
    except (ValueError, UserError) as error:
        unknown = Unknown(form.what if form.marks else _PLAIN, keys.tensors) if identified is None else None
        raise Mismatch(f"looks like {form.what}, but {error}", keys.matched, unknown) from error
    return Matched(form, keys, identified, state)


def _identified(shapes: Mapping[str, tuple[int, ...]]) -> Identified:
    """The network of these tensors; the ValueError of a network that is not known says what a user can do."""
    try:
        return identify(shapes)
    except ValueError as error:
        raise ValueError(
            f"{error}; if you know which network it is, say --architecture timm:NAME, and the first tensor "
            "that differs from it is named"
        ) from error


def _with_counters(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Detectron2's frozen batch norms, those of the first stages, have no counters; its others have."""
    norms = [name.removesuffix("running_mean") for name in tensors if name.endswith(".running_mean")]
    counters = {f"{norm}num_batches_tracked": torch.zeros((), dtype=torch.int64) for norm in norms}
    return counters | tensors


def _plain_format(network: Architecture) -> Format:
    """The state_dict of a network of timm or torchvision, whose classifier the library names."""
    import timm

    if network.name.startswith(TORCHVISION):
        bare = network.name.removeprefix(TORCHVISION)
        return Format(
            "torchvision", f"torchvision's {bare}", drops=dict.fromkeys(classifier_names(bare), "classifier")
        )

    config = timm.get_pretrained_cfg(network.name.removeprefix(TIMM), allow_unregistered=True)
    classifier = (config.classifier if config else None) or ("head", "fc", "classifier")
    names = (classifier,) if isinstance(classifier, str) else classifier
    # timm names the linear layers alone, and a few networks (LeViT, RepViT) have batch norms beside them.
    starts = [*(f"{name}." for name in names), *timm_classifier_names(network.name)]
    return Format("timm", f"timm's {network.name}", drops=dict.fromkeys(starts, "classifier"))
