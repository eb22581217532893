"""The place of a network's classifier, where many methods put their projector.

SimSiam, MoCo and others replace `fc` of a ResNet or `head` of a ViT by the layers of their projector, whose
names then stand among those of the network. Other networks have their classifier elsewhere (`head.fc`,
`classifier.4` …), and some have layers of the network itself beside it, as `head.norm` of a ConvNeXt.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Set

from torch import Tensor

from siamtransfer.backbones.catalogue import load_catalogue

USUAL_PLACES = ("fc.", "head.")
"""Of torchvision's ResNets and of timm's ViTs."""


def split_at_classifier(
    tensors: Mapping[str, Tensor], trunk: Set[str] | None = None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors of a network, and those that stand at the place of its classifier.

    The place is the one without which the tensors are those of a network in the catalogue. Where none is,
    it is the usual one, for the catalogue has neither narrow ResNets nor incomplete networks.

    Args:
        tensors: by the names of timm or torchvision.
        trunk: the names of the network's tensors, where the network is known.
    """
    if trunk is not None:
        return _split(tensors, {name for name in tensors if name not in trunk and name.startswith(places())})
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    heads = [{name for name in tensors if name.startswith(place)} for place in places()]
    for head in (set[str](), *filter(None, heads)):
        entry = load_catalogue().find({name: shape for name, shape in shapes.items() if name not in head})
        if entry is not None and not entry.head:
            return _split(tensors, head)
    return _split(tensors, {name for name in tensors if name.startswith(USUAL_PLACES)})


@functools.cache
def places() -> tuple[str, ...]:
    """The modules, each with a dot behind it, in which the networks of the catalogue have a classifier or a
    part of one: `head.fc.` and `head.`. The outer ones come first."""
    words = {name.split(".")[0] for head in load_catalogue().heads for name in head}
    modules = {name.rpartition(".")[0] for head in load_catalogue().heads for name in head} | words
    inside = {module.rpartition(".")[0] for module in modules if module.count(".") > 1}
    return tuple(
        f"{module}." for module in sorted(modules | inside, key=lambda name: (name.count("."), name))
    )


def _split(tensors: Mapping[str, Tensor], head: Set[str]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    return (
        {name: tensor for name, tensor in tensors.items() if name not in head},
        {name: tensor for name, tensor in tensors.items() if name in head},
    )
