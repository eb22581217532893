"""The form of a run's images, taken from its record to read the same images again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from siamtransfer.data.depth import remark_once
from siamtransfer.data.pixel_form import SHOWN, is_older, recorded_form
from siamtransfer.data.registry import NAMED

_REMARK = (
    "the images are read as in the run, which was made before these were options: as they are stored, "
    "without alpha, 16 bits by their upper eight (--data.orientation shown and --data.background white show "
    "images as viewers do; --data.bit-depth states the bits)"
)


def form_as_recorded(recorded: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The options of the form that a run recorded which the set `name` takes. Says it where an older run was
    read in another way than the set's usual one."""
    if name not in NAMED:
        return {}
    form = {key: value for key, value in recorded_form(recorded).items() if key in NAMED[name].takes}
    if is_older(recorded) and NAMED[name].form == SHOWN:
        remark_once("older run", _REMARK)
    return form
