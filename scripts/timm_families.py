#!/usr/bin/env python3
"""Reads a file of every family of timm's networks and compares the features with timm's own.

A family is a module of timm. Of each the member with the least work takes part, with random weights and batch
norms as after a training. Its weights are written in the ways that KINDS has, read, and run on the same
images by timm and by the reader, at the size of the weights and at another one where timm takes others.

    python scripts/timm_families.py                 every family, two hours of one core
    python scripts/timm_families.py --part 3/20     every 20th family, from the third one
    python scripts/timm_families.py convnext vit_tiny_patch16_224     families or networks
    python scripts/timm_families.py deepseek_vit --kinds backbone folder      some kinds of files only
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from timm.models import list_modules, save_for_hf
from torch import Tensor, nn

from siamtransfer.checkpoints.facts import AmbiguousReading
from siamtransfer.checkpoints.options import ReadingOptions
from siamtransfer.checkpoints.read_backbone import load_backbone
from siamtransfer.cli import run

TOLERANCE = 1e-5
"""The largest difference of two features, in units of the largest feature."""
CLASSES = 10


class Written(NamedTuple):
    """Weights in a file.

    Attributes:
        path: the file or the folder.
        weights: what the file holds, under timm's names.
        names_network: the file says whose weights these are.
        branch: which of the file's weights they are.
    """

    path: Path
    weights: dict[str, Tensor]
    names_network: bool = False
    branch: str | None = None


class Outcome(NamedTuple):
    """What became of a file.

    Attributes:
        word: `equal`; `named`, where the reader refused it for its look-alikes and the features are equal
            once the network is named; `assumed`, where it read a look-alike and said so; otherwise the
            mistake in words.
        passed: it is one of these three.
    """

    word: str
    passed: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", help="families or networks; none: every family")
    parser.add_argument("--part", default="1/1", help="I/N: the I-th, and from there every N-th")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="of files")
    options = parser.parse_args()
    first, step = (int(number) for number in options.part.split("/"))
    families = sorted(list_modules())
    passed, failed = 0, 0
    for name in (options.names or families)[first - 1 :: step]:
        network = smallest(name) if name in families else name
        outcomes = check(network, options.kinds)
        whole = all(outcome.passed for outcome in outcomes.values())
        passed, failed = passed + whole, failed + (not whole)
        words = (f"{kind}: {outcome.word}" for kind, outcome in outcomes.items())
        print(name, network, *words, sep="\t", flush=True)
    print(f"{passed} of {passed + failed} families pass")
    if failed:
        sys.exit(1)


def smallest(family: str) -> str:
    """The network of a module of timm with the least product of numbers and pixels."""

    def work(name: str) -> int:
        with torch.device("meta"):
            model = timm.create_model(name)
        return sum(parameter.numel() for parameter in model.parameters()) * side_of(model) ** 2

    return min(timm.list_models(module=family), key=work)


def side_of(model: Any) -> int:
    """The side of the images of a network's weights, in pixels."""
    return int(model.pretrained_cfg.get("input_size", (3, 224, 224))[-1])


def as_trained(model: Any, seed: int = 0) -> Any:
    """The network in eval mode with values as after a training: scales, biases and statistics of batch norms
    that matter, taken from a batch so that deep networks pass something on."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim <= 1 or not bool(parameter.any()):
                parameter.add_(0.1 + 0.1 * torch.rand_like(parameter))
        norms = [m for m in model.modules() if getattr(m, "running_mean", None) is not None]
        for norm in norms:
            norm.momentum = 1.0
        if norms:
            model.train()
            model(torch.randn(2, 3, side_of(model), side_of(model)))
        for norm in norms:
            norm.running_mean.add_(0.1 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean))
            norm.running_var.mul_(0.5 + torch.rand_like(norm.running_var))
    return model.eval()


def network_of(name: str, **choices: Any) -> Any:
    """timm's network, for images of any size where it has that choice."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = timm.create_model(name, dynamic_img_size=True, **choices)
        except TypeError:
            model = timm.create_model(name, **choices)
    return model


def _alone(model: Any, folder: Path) -> Written:
    torch.save(_without_head(model), folder / "backbone.pth")
    return Written(folder / "backbone.pth", _without_head(model))


def _with_head(model: Any, folder: Path) -> Written:
    torch.save(model.state_dict(), folder / "classifier.pth")
    return Written(folder / "classifier.pth", _without_head(model))


def _in_half(kind: torch.dtype) -> Callable[[Any, Path], Written]:
    def write(model: Any, folder: Path) -> Written:
        half = {key: t.to(kind) if t.is_floating_point() else t for key, t in model.state_dict().items()}
        torch.save(half, folder / f"{kind}.pth")
        rounded = {
            key: half[key].float() if t.is_floating_point() else t for key, t in _without_head(model).items()
        }
        return Written(folder / f"{kind}.pth", rounded)

    return write


def _folder(model: Any, folder: Path) -> Written:
    addresses = [tensor.data_ptr() for tensor in model.state_dict().values()]
    shared = len(set(addresses)) < len(addresses)  # CoaT's, which safetensors refuses to store
    save_for_hf(model, str(folder / "hub"), safe_serialization=not shared)
    return Written(folder / "hub", _without_head(model), names_network=True)


def _of_training(branch: str | None) -> Callable[[Any, Path], Written]:
    """What timm's train.py writes, with a moving average."""

    def write(model: Any, folder: Path) -> Written:
        states = {"state_dict": model.state_dict(), "state_dict_ema": _moved(model.state_dict())}
        name = model.pretrained_cfg["architecture"]
        others = {"epoch": 3, "arch": name, "version": 2, "args": Namespace(model=name), "metric": 71.5}
        optimizer = {"state": {}, "param_groups": [{"lr": 0.1, "params": [0]}]}
        torch.save({**others, **states, "optimizer": optimizer}, folder / "last.pth.tar")
        weights = _without_head(model) if branch is None else _moved(_without_head(model))
        return Written(folder / "last.pth.tar", weights, names_network=True, branch=branch)

    return write


KINDS: dict[str, Callable[[Any, Path], Written]] = {
    "backbone": _alone,
    "classifier": _with_head,
    "float16": _in_half(torch.float16),
    "bfloat16": _in_half(torch.bfloat16),
    "folder": _folder,
    "train.py": _of_training(None),
    "its average": _of_training("ema"),
}
"""The ways in which weights are written."""


def _without_head(model: Any) -> dict[str, Tensor]:
    """The tensors that timm's network has without a classifier."""
    with torch.device("meta"):
        trunk = timm.create_model(model.pretrained_cfg["architecture"], num_classes=0).state_dict()
    return {key: tensor for key, tensor in model.state_dict().items() if key in trunk}


def _moved(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: 0.9 * t if t.is_floating_point() else t for key, t in state.items()}


@torch.no_grad()
def check(name: str, kinds: Iterable[str] = tuple(KINDS)) -> dict[str, Outcome]:
    """Writes, reads and compares the files of a network, and names what came of each kind."""
    model = as_trained(network_of(name, num_classes=CLASSES))
    model.pretrained_cfg["architecture"] = name
    outcomes: dict[str, Outcome] = {}
    for kind in kinds:
        with tempfile.TemporaryDirectory() as folder:
            outcomes[kind] = _outcome(name, KINDS[kind](model, Path(folder)), other_size=not outcomes)
    return outcomes


def _outcome(name: str, written: Written, *, other_size: bool) -> Outcome:
    theirs = network_of(name, num_classes=0)
    theirs.load_state_dict(written.weights)
    theirs.eval()
    try:
        backbone, read = load_backbone(written.path, branch=written.branch)
    except AmbiguousReading as refusal:
        if written.names_network:
            return Outcome(f"refused: {refusal}", passed=False)
        options = ReadingOptions(architecture=f"timm:{name}")
        backbone, read = load_backbone(written.path, branch=written.branch, options=options)
        word = "named"
    except Exception as mistake:  # what the sweep looks for
        return Outcome(f"{type(mistake).__name__}: {mistake}", passed=False)
    else:
        word = "equal"
    if written.path.is_dir() and read.reading.normalisation.assumed:
        return Outcome("config.json was not used", passed=False)
    mistakes = [mistake for mistake in _differences(theirs, backbone, other_size) if mistake]
    if mistakes and word == "equal" and read.reading.look_alikes and not written.names_network:
        return Outcome("assumed", passed=True)
    return Outcome(mistakes[0], passed=False) if mistakes else Outcome(word, passed=True)


def _differences(theirs: Any, backbone: nn.Module, other_size: bool) -> list[str]:
    """What differs at the size of the weights, and at another one if asked for; empty where nothing does."""
    side = side_of(theirs)
    words = []
    for height, width in ((side, side), (side, side + 64))[: 1 + other_size]:
        images = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
        try:
            expected = theirs(images)
        except (AssertionError, RuntimeError, ValueError):
            if height == width:
                raise
            continue  # timm takes its own size only
        words.append(_compare(expected, backbone(images), f"at {height} x {width}"))
    return words


def _compare(expected: Tensor, found: Tensor, where: str) -> str:
    if expected.shape != found.shape:
        return f"{tuple(found.shape)} numbers {where} instead of {tuple(expected.shape)}"
    if not bool(torch.isfinite(expected).all()) or torch.allclose(expected[0], expected[1], rtol=1e-3):
        return f"timm's own features say nothing {where}"
    difference = float((expected - found).abs().max() / expected.abs().max())
    return "" if difference <= TOLERANCE else f"differs by {difference:.2g} {where}"


if __name__ == "__main__":
    run(main)
