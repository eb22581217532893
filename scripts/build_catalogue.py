#!/usr/bin/env python3
"""Rebuilds siamtransfer/backbones/catalogue.json.xz, the fingerprints of timm's and torchvision's networks,
and outlines.json.xz beside it, their tensors and numbers of attention heads.

Every network is built on torch's device "meta", which has shapes and no numbers, with its classifier and
without. Two networks of one fingerprint stand in one group where their modules have equal classes and equal
attributes (rates of dropout and the like, which act in training alone, are left out), or else where they turn
an image into equal features, each with the weights of the first, at the sizes of both.

    python scripts/build_catalogue.py             writes both files, about ten minutes of one core
    python scripts/build_catalogue.py --check 20  compares every 20th network with the files instead
"""

from __future__ import annotations

import argparse
import hashlib
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
import torchvision
from torch import nn
from tqdm import tqdm

from siamtransfer.backbones.architecture import build_backbone
from siamtransfer.backbones.catalogue import FILE, Shape, fingerprint, load_catalogue, pack, without_size
from siamtransfer.backbones.names import TIMM, TORCHVISION
from siamtransfer.backbones.outlines import FILE as OUTLINES_FILE
from siamtransfer.backbones.outlines import Row, find_outline, pack_outlines, rows_of
from siamtransfer.backbones.timm import attention_of
from siamtransfer.backbones.torchvision import classifiers, with_classifier, without_classifier
from siamtransfer.cli import run
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import atomic_write
from siamtransfer.utils.log import say

CATALOGUE = Path(__file__).resolve().parent.parent / "siamtransfer" / "backbones" / FILE
OUTLINES = CATALOGUE.with_name(OUTLINES_FILE)
LARGEST = 400_000_000
_TRAINING_ONLY = ("drop", "training", "num_classes", "grad_checkpointing", "checkpoint", "pretrained_cfg")
_SIZES = ("img_size", "grid_size", "num_patches", "seq_len", "feat_shape", "input_resolution")
_LABELS = ("default_cfg", "feature_info", "name", "p", "head_init_scale", "head_conv_bias", "init_values")


class Network(NamedTuple):
    """What the catalogue needs of a network.

    Attributes:
        name: as `build_backbone` takes it.
        head: the names of its classifier's tensors.
        exact: its fingerprint, and the digest of its modules.
        sizeless: the same without the size of its images; None where its tensors do not depend on that.
        rows: the tensors of the network without its classifier, in their order.
        heads: the number of attention heads of a plain ViT; None for any other network.
    """

    name: str
    head: frozenset[str]
    exact: tuple[str, str]
    sizeless: tuple[str, str] | None
    rows: tuple[Row, ...]
    heads: int | None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", type=int, metavar="N", help="compare every Nth network with the file")
    options = parser.parse_args()
    names = [*(TIMM + name for name in timm.list_models()), *(TORCHVISION + name for name in classifiers())]
    if options.check is not None:
        _check(describe(names[:: options.check]))
        return
    found = list(describe(names))
    made_from = {"timm": timm.__version__, "torchvision": torchvision.__version__.partition("+")[0]}
    exact = join_equal(_groups((network.name, *network.exact) for network in found))
    sizeless = _groups((network.name, *network.sizeless) for network in found if network.sizeless)
    with atomic_write(CATALOGUE) as file:
        file.write(pack(made_from, exact, sizeless, {network.head for network in found} | {frozenset()}))
    with atomic_write(OUTLINES) as file:
        file.write(pack_outlines((network.name, network.rows, network.heads) for network in found))
    for path in (CATALOGUE, OUTLINES):
        say(f"{path}: {len(found)} networks, {path.stat().st_size} bytes")


def describe(names: Iterable[str]) -> Iterator[Network]:
    """Builds the networks one after another."""
    for name in tqdm(list(names), desc="networks", unit="", disable=None):
        whole, trunk = build(name)
        shapes = shapes_of(trunk)
        head = frozenset(shapes_of(whole).keys() - shapes.keys())
        free = without_size(shapes)
        sizeless = (fingerprint(free), modules_of(trunk, sizes=False)) if free != shapes else None
        exact = fingerprint(shapes), modules_of(trunk)
        yield Network(name, head, exact, sizeless, rows_of(trunk.state_dict()), attention_of(trunk)[1])


def build(name: str) -> tuple[nn.Module, nn.Module]:
    """A network with its classifier and without."""
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        if name.startswith(TIMM):
            bare = name.removeprefix(TIMM)
            return timm.create_model(bare), timm.create_model(bare, num_classes=0)
        bare = name.removeprefix(TORCHVISION)
        return with_classifier(bare), without_classifier(bare)[0]


def shapes_of(network: nn.Module) -> dict[str, Shape]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def modules_of(network: nn.Module, *, sizes: bool = True) -> str:
    """A digest of the classes of all modules and their attributes, those of image sizes only if `sizes`."""
    sha = hashlib.sha256()
    for path, module in network.named_modules():
        attributes = {key: _plain(value) for key, value in vars(module).items() if _counts(key, sizes)}
        sha.update(f"{path} {_plain(type(module))} {sorted(attributes.items())}\n".encode())
    return sha.hexdigest()


def _counts(attribute: str, sizes: bool) -> bool:
    words = _TRAINING_ONLY if sizes else (*_TRAINING_ONLY, *_SIZES)
    return not (attribute.startswith("_") or attribute in _LABELS or any(word in attribute for word in words))


def _plain(value: Any) -> str:
    """An attribute in words that do not depend on addresses in memory."""
    if isinstance(value, bool | int | float | str | Enum | type(None)):
        return repr(value)
    if isinstance(value, list | tuple | set):
        return f"[{', '.join(map(_plain, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_plain(item)}' for key, item in value.items())}}}"
    return str(getattr(value, "__qualname__", type(value).__qualname__))


def _groups(networks: Iterable[tuple[str, str, str]]) -> dict[str, list[list[str]]]:
    """The names by fingerprint and digest of modules, of (name, fingerprint, digest). The shortest name comes
    first, timm's before torchvision's."""
    by_modules: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name, key, modules in networks:
        by_modules[key][modules].append(name)
    return {
        key: sorted((sorted(group, key=_order) for group in groups.values()), key=lambda g: _order(g[0]))
        for key, groups in by_modules.items()
    }


def join_equal(table: dict[str, list[list[str]]]) -> dict[str, list[list[str]]]:
    """The table with those groups of a fingerprint joined whose networks give equal features."""
    joined = {}
    for key, groups in tqdm(table.items(), desc="comparing", unit="", disable=None):
        kept: list[list[str]] = []
        for group in groups:
            same = next((other for other in kept if give_equal_features(other[0], group[0])), None)
            if same is None:
                kept.append(list(group))
            else:
                same.extend(group)
        joined[key] = kept
    return joined


@torch.no_grad()
def give_equal_features(name: str, other: str) -> bool:
    """Whether two networks with the same weights give equal features of random images, at the sizes of both.

    Batch norms take the moments of the batch, so that deep networks with random weights pass something on.
    Networks of more than LARGEST numbers are not compared and taken for different.
    """
    if sum(tensor.numel() for tensor in build(name)[1].state_dict().values()) > LARGEST:
        return False
    torch.manual_seed(0)
    first, second = build_backbone(name).train(), build_backbone(other).train()
    for parameter in first.parameters():
        if parameter.ndim == 1:  # scales that begin with zero or almost zero would hide what they scale
            parameter.add_(0.1 + 0.1 * torch.rand_like(parameter))
    second.load_state_dict(first.state_dict())
    for side in {side_of(name), side_of(other)}:
        images = torch.randn(2, 3, side, side)
        try:
            h, other_h = first(images), second(images)
        except (AssertionError, RuntimeError, ValueError):  # one of the two takes its own size only
            return False
        if h.shape != other_h.shape:
            return False
        tolerance = 1e-4 * float((h[0] - h[1]).abs().mean())
        if not (tolerance > 0 and torch.allclose(h, other_h, rtol=0, atol=tolerance)):
            return False
    return True


def side_of(name: str) -> int:
    """The side of the images that the network's weights were trained with, 224 of torchvision's."""
    if not name.startswith(TIMM):
        return 224
    config = timm.get_pretrained_cfg(name.removeprefix(TIMM), allow_unregistered=True)
    return int(config.input_size[-1]) if config else 224


def _order(name: str) -> tuple[bool, int, str]:
    return name.startswith(TORCHVISION), len(name), name


def _check(networks: Iterable[Network]) -> None:
    catalogue = load_catalogue()
    wrong = [
        network.name
        for network in networks
        if network.name not in sum(catalogue.exact.get(network.exact[0], ()), ()) or not _is_outlined(network)
    ]
    if wrong:
        raise UserError(
            f"{CATALOGUE.name} or {OUTLINES.name} has not {', '.join(wrong)} as they are built here; "
            f"made from {catalogue.made_from}"
        )
    say("every network is in the catalogue as it is built here")


def _is_outlined(network: Network) -> bool:
    """Whether the network's outline in the file has the tensors and heads with which it is built here."""
    known = find_outline(network.name)
    return known is not None and (rows_of(known.tensors), known.heads) == (network.rows, network.heads)


if __name__ == "__main__":
    run(main)
