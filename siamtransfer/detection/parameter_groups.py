"""The groups of parameters of a fine-tuning: rates that decay towards the stem, and what has no weight decay.

Both engines build their optimizers of them. Rates that decay with depth are those of Clark et al. 2020
(ELECTRA) and Bao et al. 2022 (BEiT), which ViTDet takes (Li et al. 2022, arXiv 2203.16527, appendix A.2).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.backbones.backbone import Backbone
from siamtransfer.backbones.layer_depth import layer_count, layer_numbers
from siamtransfer.detection.pyramid_trunk import PyramidTrunk
from siamtransfer.utils.errors import UserError


@dataclass(frozen=True, kw_only=True)
class GroupSettings:
    """How parameters learn.

    Attributes:
        lr: of what is above the trunk.
        weight_decay: of all that is named in neither of the next two.
        norm_weight_decay: of the parameters of norms.
        no_decay: names of parameters without weight decay, such as pos_embed, wherever they are.
        layer_decay: factor of the rate from a layer of the trunk to the one before it; 1: one rate for all.
    """

    lr: float
    weight_decay: float
    norm_weight_decay: float
    no_decay: tuple[str, ...] = ()
    layer_decay: float = 1.0

    def check(self) -> None:
        """Raises UserError for a value that means nothing."""
        if not 0 < self.layer_decay <= 1:
            raise UserError(f"SOLVER.LAYER_DECAY is {self.layer_decay}; it has to be above 0 and at most 1")
        if not all(isinstance(name, str) for name in self.no_decay):
            raise UserError(f"SOLVER.NO_DECAY is {self.no_decay}; it has to be a list of names of parameters")


def parameter_groups(network: nn.Module, settings: GroupSettings) -> list[dict[str, Any]]:
    """Groups for torch's optimizers of all parameters that learn: `params`, `lr`, `weight_decay`, and
    `lr_factor`, by which the group's rate differs from that of the heads.

    Those with `weight_decay` come first, then norms, then those without; in each the factor falls. The first
    two are there even without a parameter, as states of older versions have them.

    Raises:
        UserError: a setting means nothing, a name of `no_decay` is that of no parameter, or the layers of the
            trunk are not known.
    """
    settings.check()
    factors = _factors(network, settings.layer_decay)
    decays = {"others": settings.weight_decay, "norms": settings.norm_weight_decay, "spared": 0.0}
    grouped: dict[str, dict[float, list[nn.Parameter]]] = {
        "others": {1.0: []},
        "norms": {1.0: []},
        "spared": {},
    }
    found = set()
    for owner, name, parameter in _own_parameters(network):
        kind = "norms" if _is_norm(owner) else "others"
        if name in settings.no_decay:
            kind = "spared"
            found.add(name)
        grouped[kind].setdefault(factors.get(id(parameter), 1.0), []).append(parameter)
    if absent := [name for name in settings.no_decay if name not in found]:
        raise UserError(f"SOLVER.NO_DECAY names {absent[0]}, and no parameter that learns has that name")
    return [
        {
            "params": parameters,
            "lr": settings.lr * factor,
            "lr_factor": factor,
            "weight_decay": decays[kind],
        }
        for kind, by_factor in grouped.items()
        for factor, parameters in sorted(by_factor.items(), reverse=True)
    ]


def build_optimizer(
    name: str,
    groups: list[dict[str, Any]],
    *,
    lr: float,
    momentum: float,
    betas: tuple[float, ...],
    nesterov: bool = False,
) -> torch.optim.Optimizer:
    """torch's SGD or AdamW over the groups; `momentum` and `nesterov` are SGD's, `betas` AdamW's.

    Raises:
        UserError: see `check_optimizer`.
    """
    check_optimizer(name, betas)
    if name == "SGD":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov)
    return torch.optim.AdamW(groups, lr=lr, betas=(betas[0], betas[1]))


def check_optimizer(name: str, betas: tuple[float, ...]) -> None:
    """Raises UserError for an optimizer that there is not here, and for betas that mean nothing."""
    if name not in ("SGD", "AdamW"):
        raise UserError(f"SOLVER.OPTIMIZER is {name!r}; it is SGD or AdamW")
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise UserError(f"SOLVER.BETAS is {betas}; it has to be two numbers of at least 0 and below 1")


def _own_parameters(network: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    """Each parameter that learns once, with the module that owns it and its name there."""
    seen = set()
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                yield module, name, parameter


def _is_norm(module: nn.Module) -> bool:
    """By the name of its class: timm, torchvision and Detectron2 have norms of their own beside torch's."""
    return "Norm" in type(module).__name__


def _factors(network: nn.Module, layer_decay: float) -> dict[int, float]:
    """The factor of each parameter of the trunk, by its id; empty without decay."""
    if layer_decay == 1:
        return {}
    for module in network.modules():
        if isinstance(module, PyramidTrunk | Backbone):
            numbers, count = _layers(module)
            return {
                id(parameter): layer_decay ** (count - numbers[name])
                for name, parameter in module.named_parameters()
                if name in numbers
            }
    raise UserError(
        f"SOLVER.LAYER_DECAY is {layer_decay}, and the layers of this trunk are not counted: leave it 1, or "
        "convert a network of timm"
    )


def _layers(trunk: PyramidTrunk | Backbone) -> tuple[dict[str, int], int]:
    """The layer of each parameter by its name in the trunk, and the number that heads have.

    Relative positions of a ViT belong to their blocks. What else is made for detection is above the trunk.
    """
    if isinstance(trunk, Backbone):
        inside = "model." if hasattr(trunk, "model") else ""
        return {inside + name: number for name, number in layer_numbers(trunk).items()}, layer_count(trunk)
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        counted = Architecture(trunk.bottom_up.name).build()
    numbers = layer_numbers(counted)
    names = {f"bottom_up.model.{name}": number for name, number in numbers.items()}
    for name, _ in trunk.named_parameters():
        part, _, rest = name.partition(".")
        if part == "relative":
            names[name] = numbers[f"blocks.{rest.split('.')[0]}.norm1.weight"]
    return names, layer_count(counted)
