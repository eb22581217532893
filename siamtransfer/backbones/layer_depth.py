"""How deep each tensor of a backbone lies: which layer it belongs to, counted from the stem.

A layer is what a learning rate that decays with depth, or a partial fine-tuning, treats as one: the stem is
layer 0, each residual or transformer block is a layer of its own, and heads come after the last one.
timm's networks are grouped by timm (`group_matcher`), so that the numbers are those of its
`param_groups_layer_decay`; torchvision's by the rules below, which give its ResNets timm's numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from torch import nn

from siamtransfer.backbones.backbone import Backbone
from siamtransfer.backbones.timm import TimmBackbone
from siamtransfer.utils.errors import UserError

_STEM = re.compile(r"(?:stem|conv_proj|class_token|encoder\.pos_embedding)(?:\.|$)")
_NESTED = re.compile(r"(?:features|layers)\.\d+\.\d+")
_LAYERS = (
    re.compile(r"layer\d+\.\d+"),  # ResNet
    re.compile(r"features\.denseblock\d+\.denselayer\d+"),
    re.compile(r"trunk_output\.block\d+\.block\d+-\d+"),  # RegNet
    re.compile(r"encoder\.layers\.encoder_layer_\d+"),  # ViT
    re.compile(r"blocks\.\d+\.layers\.\d+"),  # MaxViT
    re.compile(r"stage\d+\.\d+"),  # ShuffleNet
    _NESTED,  # EfficientNet, ConvNeXt, Swin, MNASNet
    re.compile(r"(?:features|layers|classifier)\.\w+"),
    re.compile(r"\w+"),
)
"""The layer of a tensor in torchvision's networks is the first match; of _NESTED only where that is a block
and not a single convolution."""


def layer_number(name: str, backbone: Backbone) -> int:
    """The layer of the parameter `name`, from 0 for the stem up; see `layer_numbers`.

    Raises:
        UserError: timm does not group the layers of this network.
        KeyError: the backbone has no such parameter.
    """
    return layer_numbers(backbone)[name.removeprefix("model.")]


def layer_count(backbone: Backbone) -> int:
    """The number of layers L of the trunk. Its layers are 0 to L - 1, and heads are layer L.

    Raises:
        UserError: timm does not group the layers of this network.
    """
    return _numbers(backbone)[1]


def layer_numbers(backbone: Backbone) -> dict[str, int]:
    """The layer of every parameter, by its name in `backbone.state_dict()`, in their order.

    A norm after the last block belongs to that block. What timm counts to the classifier, such as the norm
    after the pooling of ConvNeXt, has the number of heads, `layer_count`.

    Raises:
        UserError: timm does not group the layers of this network.
    """
    return _numbers(backbone)[0]


def _numbers(backbone: Backbone) -> tuple[dict[str, int], int]:
    """The layer of every parameter, and the number that heads have."""
    if isinstance(backbone, TimmBackbone):
        return _timm_numbers(backbone)
    return _numbers_by_order(getattr(backbone, "model", backbone))


class _WithClassifier:
    """The parameters of a network and one of its classifier, as timm's grouping reads them: the classifier
    that the backbone lacks shows where heads are."""

    def __init__(self, model: nn.Module, classifier: str):
        self.model, self.classifier = model, classifier

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter | None]]:
        yield from self.model.named_parameters()
        yield self.classifier, None


def _timm_numbers(backbone: TimmBackbone) -> tuple[dict[str, int], int]:
    from timm.models import group_parameters

    model: Any = backbone.model
    if not hasattr(model, "group_matcher"):
        raise UserError(
            f"timm does not say which tensors of {backbone.name} make a layer, so no rate can follow its "
            "depth: choose another network, or one rate for the whole trunk"
        )
    classifier = model.pretrained_cfg.get("classifier") or "head"
    first = classifier if isinstance(classifier, str) else classifier[0]
    grouped: Any = _WithClassifier(model, f"{first}.weight")
    numbers: dict[str, int] = group_parameters(grouped, model.group_matcher(coarse=False), reverse=True)
    heads = numbers[f"{first}.weight"]
    return {name: numbers[name] for name, _ in model.named_parameters()}, heads


def _numbers_by_order(network: nn.Module) -> tuple[dict[str, int], int]:
    """Layers in the order of the tensors. One that holds vectors alone, as a norm does, belongs to the layer
    before it."""
    layers: dict[str, list[tuple[str, int]]] = {}
    for name, parameter in network.named_parameters():
        layers.setdefault(_layer_of(name, network), []).append((name, parameter.ndim))
    numbers: dict[str, int] = {}
    number = -1
    for tensors in layers.values():
        if number < 0 or any(dimensions > 1 for _, dimensions in tensors):
            number += 1
        numbers |= {name: number for name, _ in tensors}
    return numbers, number + 1


def _layer_of(name: str, network: nn.Module) -> str:
    if _STEM.match(name):
        return "stem"
    for pattern in _LAYERS:
        match = pattern.match(name)
        if match and (pattern is not _NESTED or any(network.get_submodule(match[0]).children())):
            return match[0]
    raise AssertionError(name)
