"""Rewrites a schedule for 8 GPUs, the published number, for fewer: all that depends on the batch changes.

The rule is Goyal et al.'s (arXiv 1706.02677): the learning rate is proportional to the batch, the steps and
the warm-up to its inverse, so that as many images are seen. Precise statistics of norms keep their number of
images too.
"""

from __future__ import annotations

from typing import Any

from siamtransfer.utils.errors import UserError

PUBLISHED_GPUS = 8


def scale_to(cfg: Any, gpus: int) -> dict[str, list[Any]]:
    """Rewrites `cfg` from 8 GPUs to `gpus`; returns each changed key with its value before and after.

    Raises:
        UserError: the batch cannot be divided so.
    """
    batch = cfg.SOLVER.IMS_PER_BATCH
    if gpus < 1 or batch * gpus % PUBLISHED_GPUS:
        raise UserError(
            f"--scale-to {gpus}: {batch} images a step for {PUBLISHED_GPUS} GPUs are no whole number for "
            f"{gpus}; choose 1, 2, 4 or 8, or another SOLVER.IMS_PER_BATCH"
        )
    if gpus == PUBLISHED_GPUS:
        return {}
    scale = gpus / PUBLISHED_GPUS
    solver, test = cfg.SOLVER, cfg.TEST
    new = {
        "IMS_PER_BATCH": batch * gpus // PUBLISHED_GPUS,
        "BASE_LR": solver.BASE_LR * scale,
        "POLY_END_LR": solver.POLY_END_LR * scale,
        "MAX_ITER": round(solver.MAX_ITER / scale),
        "STEPS": tuple(round(step / scale) for step in solver.STEPS),
        "WARMUP_ITERS": round(solver.WARMUP_ITERS / scale),
        "CHECKPOINT_PERIOD": round(solver.CHECKPOINT_PERIOD / scale),
    }
    changed = {f"SOLVER.{key}": [solver[key], value] for key, value in new.items()}
    changed["TEST.EVAL_PERIOD"] = [test.EVAL_PERIOD, round(test.EVAL_PERIOD / scale)]
    precise = test.PRECISE_BN
    changed["TEST.PRECISE_BN.NUM_ITER"] = [precise.NUM_ITER, round(precise.NUM_ITER / scale)]
    solver.update(new)
    test.EVAL_PERIOD = changed["TEST.EVAL_PERIOD"][1]
    precise.NUM_ITER = changed["TEST.PRECISE_BN.NUM_ITER"][1]
    return {key: values for key, values in changed.items() if values[0] != values[1]}


def not_comparable(cfg: Any) -> str:
    """What a scaled run does not share with the published one, in words; `cfg` after scaling."""
    return (
        f"norms see {cfg.SOLVER.IMS_PER_BATCH} images a step instead of the published number and the rate "
        "was scaled with them; the schedule covers as many images, but the figures of the configuration's "
        "header are no longer the measure: compare with other weights at this very scale"
    )
