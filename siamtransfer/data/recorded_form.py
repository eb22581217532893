"""What a run records of its images, taken to read the same images again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from siamtransfer.data.depth import remark_on_set
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
        remark_on_set("older run", _REMARK)
    return form


def hint_on_parts(recorded: Mapping[str, Any], name: str, parts: str | None) -> str:
    """Why an older run may have had other images of the set `name`: the end of a sentence that says so, empty
    where `parts` is stated or the set has none."""
    if parts is not None or not is_older(recorded) or name not in NAMED or "parts" not in NAMED[name].takes:
        return ""
    return "; older versions took folders such as Train or valid_set for classes, as --data.parts none does"
