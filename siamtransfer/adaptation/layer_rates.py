"""Learning rates that fall with the distance from the heads.

Layer l of a trunk of L layers has the rate base x decay^(L - l), and heads have the base rate (the
fine-tuning of BEiT, arXiv 2106.08254, and of MAE, arXiv 2111.06377, appendix A.1, after ELECTRA, arXiv
2003.10555). Layers near the image, which are the most general, change least.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from siamtransfer.backbones.backbone import Backbone
from siamtransfer.backbones.layer_depth import layer_count, layer_numbers
from siamtransfer.methods.base import ParameterGroup


def slow_trunk(
    groups: Sequence[ParameterGroup], backbone: Backbone, *, layer_decay: float = 1.0, trunk_lr: float = 1.0
) -> list[ParameterGroup]:
    """`groups` with the rates of `backbone`'s parameters multiplied by trunk_lr x layer_decay^(L - l).

    A group is divided into one for each layer and one for what is no part of the backbone. Rules that the
    group has stay: a constant rate, and a factor of its own, which multiplies.

    Raises:
        UserError: `layer_decay` is not 1, and the layers of this network are not known.
    """
    if layer_decay == trunk_lr == 1:
        return list(groups)
    factors = _factors(backbone, layer_decay, trunk_lr)
    divided: list[ParameterGroup] = []
    for group in groups:
        parts: dict[str, tuple[float, list[nn.Parameter]]] = {}
        for parameter in group.parameters:
            name, factor = factors.get(id(parameter), ("", 1.0))
            parts.setdefault(name, (factor, []))[1].append(parameter)
        divided += [
            replace(
                group,
                name=group.name + name,
                parameters=parameters,
                lr_scale=group.lr_scale * factor,
            )
            for name, (factor, parameters) in parts.items()
        ]
    return divided


def _factors(backbone: Backbone, layer_decay: float, trunk_lr: float) -> dict[int, tuple[str, float]]:
    """What is appended to a group's name, and the factor, of each of the backbone's parameters by its id."""
    if layer_decay == 1:
        return {id(parameter): (", trunk", trunk_lr) for parameter in backbone.parameters()}
    numbers, heads = layer_numbers(backbone), layer_count(backbone)
    return {
        id(parameter): (f", layer {number}", trunk_lr * layer_decay ** (heads - number))
        for name, parameter in backbone.named_parameters()
        for number in [numbers[name.removeprefix("model.")]]
    }
