"""A saved loss scale for a training that goes on, in the same precision or in another one.

Only float16 has a loss scale. A state that was saved in float16 continues in bfloat16 or float32 without it,
and a state without one continues in float16 with the scale of a new training.
"""

from __future__ import annotations

from typing import Any

import torch

from siamtransfer.distributed.runtime import Runtime
from siamtransfer.utils.log import say


def load_loss_scale(
    scaler: torch.amp.GradScaler, saved: dict[str, Any], runtime: Runtime, precision: str | None = None
) -> None:
    """Fills `scaler` from the state that was `saved` (empty where the precision had no scale).

    Rank 0 says where the precision is another one than that of the state. `precision` is the state's; None
    where it was not recorded, as in older versions: then only a change from or to float16 is seen.
    """
    if scaler.is_enabled() and saved:
        scaler.load_state_dict(saved)
    if precision is None:
        precision = "float16" if saved else "a precision without a loss scale"
        changed = bool(saved) != scaler.is_enabled()
    else:
        changed = precision != runtime.precision
    if not changed or not runtime.is_main:
        return
    scale = ""
    if scaler.is_enabled():
        scale = f"; the loss scale starts at {scaler.get_scale():g}, as in a new training"
    elif saved:
        scale = "; its loss scale is not needed"
    say(
        f"the state was saved in {precision} and the training goes on in {runtime.precision}{scale}: the "
        "losses differ by rounding from those of one precision"
    )
