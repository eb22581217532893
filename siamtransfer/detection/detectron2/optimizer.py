"""The optimizer of a fine-tuning in Detectron2: its own, or one with this project's keys of SOLVER."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from siamtransfer.detection.parameter_groups import GroupSettings, build_optimizer, parameter_groups
from siamtransfer.utils.errors import UserError

PLAIN = {"OPTIMIZER": "SGD", "BETAS": (0.9, 0.999), "LAYER_DECAY": 1.0, "NO_DECAY": ()}
"""The keys of this project in SOLVER, at the values with which Detectron2's own optimizer is taken."""
_TAKES_NO_OTHER = {"BIAS_LR_FACTOR": 1.0, "WEIGHT_DECAY_BIAS": None}


def has_own_optimizer(cfg: Any) -> bool:
    """Whether the configuration asks for more than Detectron2's SGD."""
    return any(cfg.SOLVER[key] != value for key, value in PLAIN.items())


def build_own_optimizer(cfg: Any, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of OPTIMIZER, BETAS, LAYER_DECAY and NO_DECAY over what of the model learns.

    WEIGHT_DECAY and WEIGHT_DECAY_NORM hold as in Detectron2's, and so does its clipping of gradients.

    Raises:
        UserError: a value means nothing, or keys do not go together.
    """
    from detectron2.solver.build import maybe_add_gradient_clipping

    solver = cfg.SOLVER
    for key, value in _TAKES_NO_OTHER.items():
        if solver[key] != value:
            raise UserError(
                f"SOLVER.{key} is {solver[key]!r} beside OPTIMIZER {solver.OPTIMIZER}, LAYER_DECAY "
                f"{solver.LAYER_DECAY} and NO_DECAY {list(solver.NO_DECAY)}, which take {value!r} only"
            )
    groups = parameter_groups(
        model,
        GroupSettings(
            lr=solver.BASE_LR,
            weight_decay=solver.WEIGHT_DECAY,
            norm_weight_decay=solver.WEIGHT_DECAY_NORM,
            no_decay=tuple(solver.NO_DECAY),
            layer_decay=solver.LAYER_DECAY,
        ),
    )
    optimizer = build_optimizer(
        solver.OPTIMIZER,
        groups,
        lr=solver.BASE_LR,
        momentum=solver.MOMENTUM,
        betas=tuple(solver.BETAS),
        nesterov=solver.NESTEROV,
    )
    clipped: torch.optim.Optimizer = maybe_add_gradient_clipping(cfg, optimizer)
    return clipped
