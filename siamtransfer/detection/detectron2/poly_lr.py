"""The polynomial schedule of the learning rate, which Detectron2's release 0.6 lacks."""

from __future__ import annotations

from typing import Any

from siamtransfer.utils.errors import UserError

POLY = "PolyLR"


def check_poly_lr(solver: Any) -> None:
    """Raises UserError where the last rate is above the first."""
    if not 0 <= solver.POLY_END_LR <= solver.BASE_LR:
        raise UserError(
            f"SOLVER.POLY_END_LR {solver.POLY_END_LR:g} is not between 0 and SOLVER.BASE_LR "
            f"{solver.BASE_LR:g}; lower it"
        )


def build_poly_lr(cfg: Any, optimizer: Any) -> Any:
    """SOLVER.BASE_LR falls to POLY_END_LR as the rest of the steps to the power of POLY_POWER, after
    Detectron2's warm-up.

    Raises:
        UserError: the last rate is above the first.
    """
    from detectron2.solver.lr_scheduler import LRMultiplier, WarmupParamScheduler
    from fvcore.common.param_scheduler import ParamScheduler

    solver = cfg.SOLVER
    check_poly_lr(solver)
    end, power = solver.POLY_END_LR / solver.BASE_LR, solver.POLY_POWER

    class Polynomial(ParamScheduler):
        """The factor of the learning rate at the fraction `where` of the steps."""

        def __call__(self, where: float) -> float:
            return end + (1 - end) * (1 - where) ** power

    warm = WarmupParamScheduler(
        Polynomial(),
        solver.WARMUP_FACTOR,
        min(solver.WARMUP_ITERS / solver.MAX_ITER, 1.0),
        solver.WARMUP_METHOD,
    )
    return LRMultiplier(optimizer, multiplier=warm, max_iter=solver.MAX_ITER)
