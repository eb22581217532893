"""The optimizer of a fine-tuning in Detectron2: its own, or one with this project's keys of SOLVER."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from siamtransfer.detection.detectron2.timm_settings import TIMM_LAYOUTS
from siamtransfer.detection.parameter_groups import (
    GroupSettings,
    build_optimizer,
    check_optimizer,
    parameter_groups,
)
from siamtransfer.utils.errors import UserError

PLAIN = {"OPTIMIZER": "SGD", "BETAS": (0.9, 0.999), "LAYER_DECAY": 1.0, "NO_DECAY": ()}
"""The keys of this project in SOLVER, at the values with which Detectron2's own optimizer is taken."""
_TAKES_NO_OTHER = {"BIAS_LR_FACTOR": 1.0, "WEIGHT_DECAY_BIAS": None}


def has_own_optimizer(cfg: Any) -> bool:
    """Whether the configuration asks for more than Detectron2's SGD."""
    return any(cfg.SOLVER[key] != value for key, value in PLAIN.items())


def check_own_optimizer(cfg: Any) -> None:
    """Raises UserError where a value of the own keys means nothing, or where keys do not go together."""
    if not has_own_optimizer(cfg):
        return
    solver, trunk = cfg.SOLVER, cfg.MODEL.BACKBONE.NAME
    check_optimizer(solver.OPTIMIZER, tuple(solver.BETAS))
    _groups(cfg).check()
    if solver.LAYER_DECAY != 1 and trunk not in TIMM_LAYOUTS:
        raise UserError(
            f"SOLVER.LAYER_DECAY is {solver.LAYER_DECAY}, and the layers of {trunk} are not counted: leave "
            "it 1, or take a network of timm"
        )
    for key, value in _TAKES_NO_OTHER.items():
        if solver[key] != value:
            raise UserError(
                f"SOLVER.{key} is {solver[key]!r} beside OPTIMIZER {solver.OPTIMIZER}, LAYER_DECAY "
                f"{solver.LAYER_DECAY} and NO_DECAY {list(solver.NO_DECAY)}, which take {value!r} only"
            )


def _groups(cfg: Any) -> GroupSettings:
    solver = cfg.SOLVER
    return GroupSettings(
        lr=solver.BASE_LR,
        weight_decay=solver.WEIGHT_DECAY,
        norm_weight_decay=solver.WEIGHT_DECAY_NORM,
        no_decay=tuple(solver.NO_DECAY),
        layer_decay=solver.LAYER_DECAY,
    )


def build_own_optimizer(cfg: Any, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of OPTIMIZER, BETAS, LAYER_DECAY and NO_DECAY over what of the model learns.

    WEIGHT_DECAY and WEIGHT_DECAY_NORM hold as in Detectron2's, and so does its clipping of gradients.

    Raises:
        UserError: see `check_own_optimizer`; or no parameter has a name of NO_DECAY.
    """
    from detectron2.solver.build import maybe_add_gradient_clipping

    check_own_optimizer(cfg)
    solver = cfg.SOLVER
    optimizer = build_optimizer(
        solver.OPTIMIZER,
        parameter_groups(model, _groups(cfg)),
        lr=solver.BASE_LR,
        momentum=solver.MOMENTUM,
        betas=tuple(solver.BETAS),
        nesterov=solver.NESTEROV,
    )
    clipped: torch.optim.Optimizer = maybe_add_gradient_clipping(cfg, optimizer)
    return clipped
