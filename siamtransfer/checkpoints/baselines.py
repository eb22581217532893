"""Baselines that are named instead of given as a file: untrained backbones, torchvision's supervised weights.

    random:resnet50     random:resnet18:width=32:stem=small:seed=1
    torchvision:resnet50     torchvision:resnet50:IMAGENET1K_V1     torchvision:resnet50=resnet50-0676ba61.pth

Nothing is downloaded: torchvision's weights are read from torch hub's folder or from the file in the name.
The SHA-256 of the bytes has to match the digest in the file's name.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast

import torch

from siamtransfer.backbones.architecture import build_backbone
from siamtransfer.backbones.backbone import Backbone
from siamtransfer.backbones.names import (
    FULL_WIDTH,
    NORMS,
    RESNETS,
    TORCHVISION,
    WITHOUT_WEIGHTS,
    NetworkNorm,
    Stem,
)
from siamtransfer.backbones.torchvision import torchvision_name
from siamtransfer.checkpoints.normalisation import HALF, IMAGENET, Normalisation
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import digest_of_file

RANDOM = "random:"


def build_untrained(source: str) -> tuple[Backbone, int]:
    """The backbone that `random:NAME` names, and the seed of its weights (default 0). The random state of the
    caller does not change.

    Raises:
        UserError: there is no such backbone or option.
    """
    words = source.removeprefix(RANDOM).split(":")
    options = dict(word.split("=", 1) for word in words if "=" in word)
    name, seed = ":".join(word for word in words if "=" not in word), options.pop("seed", "0")
    width, stem = options.pop("width", str(FULL_WIDTH)), options.pop("stem", "imagenet")
    channels, norm = options.pop("channels", "3"), options.pop("norm", "batch")
    if options or not (seed.isdecimal() and width.isdecimal() and channels.isdecimal()):
        raise UserError(
            f"{source}: the options are width=NUMBER, stem=imagenet or small, norm={', '.join(NORMS)}, "
            "channels=NUMBER and seed=NUMBER"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(seed))
        backbone = build_backbone(
            name,
            width=int(width),
            stem=cast(Stem, stem),
            norm=cast(NetworkNorm, norm),
            in_channels=int(channels),
        )
        return backbone, int(seed)


def find_torchvision_weights(source: str) -> tuple[str, Path]:
    """The architecture in `torchvision:NAME[:WEIGHTS]` or `torchvision:NAME=FILE`, and the file of its
    weights, whose bytes match the digest in its name.

    WEIGHTS is torchvision's name of a set of weights; without it the one in torch hub's folder is read.

    Raises:
        UserError: no such architecture or weights, no file (says where to get it), several, or a damaged one.
    """
    model, equals, path = source.removeprefix(TORCHVISION).partition("=")
    name, _, weights = model.partition(":")
    if name in WITHOUT_WEIGHTS:
        raise UserError(f"{source}: torchvision has no weights of {name}; random:{name} is an untrained one")
    if name not in RESNETS:
        try:
            torchvision_name(name)
        except UserError as error:
            raise UserError(f"{source}: {error}") from error
    if equals and weights:
        raise UserError(f"{source}: give either {weights} or a file, not both")
    file = Path(path) if equals else _find_in_hub(source, name, weights)
    digest = re.fullmatch(rf"{name}-([0-9a-f]{{8,64}})\.pth", file.name)
    if digest is None:
        raise UserError(
            f"{source}: torchvision's file would be called {name}-DIGEST.pth; other weights are scored by "
            "their path alone"
        )
    if not file.is_file():
        raise UserError(f"{source}: there is no file {file}")
    actual = digest_of_file(file)
    if not actual.startswith(digest[1]):
        raise UserError(
            f"{file} is damaged: its SHA-256 begins with {actual[:8]}, not with the {digest[1]} of its name: "
            "get it again"
        )
    return name, file


_HALF = ("googlenet", "inception_v3")  # torchvision turns the usual normalisation into this in the network


def torchvision_normalisation(name: str, file: Path) -> Normalisation:
    """Mean and std of the images for torchvision's weights in a file of that name."""
    from torchvision.models import get_model_weights

    if name in _HALF:
        return HALF
    for weights in get_model_weights(name):
        if weights.url.rsplit("/", 1)[1] == file.name:
            views = weights.transforms()
            return Normalisation(tuple(views.mean), tuple(views.std))
    return IMAGENET


def weight_urls(name: str) -> dict[str, str]:
    """The URLs of torchvision's weights of an architecture by their names, the oldest first."""
    from torchvision.models import get_model_weights

    return {weights.name: weights.url for weights in get_model_weights(name)}


def _find_in_hub(source: str, name: str, weights: str) -> Path:
    """The file of the weights in torch hub's folder."""
    urls = weight_urls(name)
    if weights and weights not in urls:
        raise UserError(f"{source}: torchvision's weights of {name} are {', '.join(urls)}")
    candidates = {weights: urls[weights]} if weights else urls
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    files = {key: folder / url.rsplit("/", 1)[1] for key, url in candidates.items()}
    existing = [key for key, file in files.items() if file.is_file()]
    if len(existing) > 1:
        choices = " or ".join(f"{TORCHVISION}{name}:{key}" for key in existing)
        raise UserError(f"{source}: {folder} has several weights of {name}; choose {choices}")
    if not existing:
        pages = " or ".join(f"{url} ({key})" for key, url in candidates.items())
        raise UserError(
            f"{source}: nothing is downloaded here: fetch {pages} into {folder}, or name the file as "
            f"{TORCHVISION}{name}=FILE"
        )
    return files[existing[0]]
