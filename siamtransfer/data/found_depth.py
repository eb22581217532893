"""The depth of a set's images, found in some of its files.

A file says that its pixels have 16 bits, not how many of them a camera filled, and nothing of the range of
floating-point numbers. The largest value in some files says both: integers have the least usual number of
bits that holds it, and floating-point numbers go from 0 to 1 or from 0 to 255. What was found is one for the
whole set and is said; an image that does not fit it is an error that says what to state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from siamtransfer.data.deep_values import DEEP_STARTS, Extremes, extremes_of
from siamtransfer.data.depth import depth_for, is_dim, levels_of
from siamtransfer.data.first_look import LOOKED_AT, MOST_BYTES, Files, Look, evenly
from siamtransfer.data.pixel_form import FULL, PixelForm
from siamtransfer.data.unreadable import UnreadableImage
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import printable

MORE_FILES = 256
"""Files whose values are looked at where the first ones do not use all bits."""


class Found(NamedTuple):
    """The form with the depth that was found, and what is to be said of it."""

    form: PixelForm
    remarks: list[str]


def find_depth(files: Files, form: PixelForm, looks: dict[int, Look]) -> Found:
    """Completes the bit depth and the range of values of a form, where they are not stated, from the files.

    Raises:
        UserError: floating-point numbers are neither from 0 to 1 nor from 0 to 255.
    """
    deep = {index: look.extremes for index, look in looks.items() if look.extremes is not None}
    if not deep or form.value_range is not None:
        return Found(form, [])
    looked_at = len(looks)
    if len(files) > LOOKED_AT and not _is_settled(list(deep.values())):
        looked_at = len(more := _look_at_more(files, form))
        deep = {index: extremes for index, extremes in more.items() if extremes is not None} | deep
    whole = {index: e for index, e in deep.items() if not e.floating and e.low >= 0 and e.high <= 0xFFFF}
    floating = {index: e for index, e in deep.items() if e.floating}
    remarks = []
    if form.bit_depth is None and whole:
        form, said = _with_bits(files, form, whole, looked_at)
        remarks += said
    if floating:
        form, remark = _with_range(files, form, floating, looked_at)
        remarks.append(remark)
    return Found(form, remarks)


def _is_settled(deep: Sequence[Extremes]) -> bool:
    """Whether more files would not change what was found."""
    return any(not e.floating and int(e.high) >> 14 for e in deep) and not any(e.floating for e in deep)


def _look_at_more(files: Files, form: PixelForm) -> dict[int, Extremes | None]:
    found: dict[int, Extremes | None] = {}
    budget = MOST_BYTES
    for index in evenly(len(files), MORE_FILES):
        if budget <= 0:
            break
        try:
            with files.opened(index) as stream:
                start = stream.read(16)
                data = start + stream.read() if start.startswith(DEEP_STARTS) else b""
        except (OSError, UnreadableImage):
            continue
        budget -= len(data)
        found[index] = extremes_of(data, form) if data else None
    return found


def _with_bits(
    files: Files, form: PixelForm, whole: dict[int, Extremes], looked_at: int
) -> tuple[PixelForm, list[str]]:
    """The form with the bits that integers use, and remarks on them; 16 are no remark."""
    high = max(int(e.high) for e in whole.values())
    stated = [e.stated for e in whole.values() if e.stated is not None]
    bits = max(stated) if len(stated) == len(whole) else depth_for(high)
    where, remarks = f"{files.name}/{files.split}", []
    if bits < FULL:
        form = replace(form, bit_depth=bits, found=True)
        remarks.append(
            f"{where}: {len(whole)} of {looked_at} files that were looked at have pixels of more than 8 "
            f"bits, of which the largest is {high}, so they are read as of {bits} bits (--data.bit-depth "
            "states another number)"
        )
    dim = {index: e for index, e in whole.items() if is_dim(int(e.low), int(e.high), bits)}
    if dim:
        first = next(iter(dim))
        low, high = min(int(e.low) for e in dim.values()), max(int(e.high) for e in dim.values())
        levels = max(levels_of(int(e.low), int(e.high), bits) for e in dim.values())
        most_are = len(dim) > len(whole) / 2
        spread = f"say --data.value-range {low} {high}, which spreads these values and clips others, or "
        remarks.append(
            f"{where}: {len(dim)} of {len(whole)} files of more than 8 bits, such as "
            f"{printable(files.relative_name(first))}, have values of {low} to {high} and become at most "
            f"{levels} of 256 grey levels, nearly one colour: {spread if most_are else ''}convert these "
            "files to 8 bits"
        )
    return form, remarks


def _with_range(
    files: Files, form: PixelForm, floating: dict[int, Extremes], looked_at: int
) -> tuple[PixelForm, str]:
    """The form with the range of floating-point numbers, and the remark on it."""
    for index, extremes in floating.items():
        if extremes.low < 0 or extremes.high > 255:
            raise UserError(
                f"{files.describe(index)} has floating-point numbers of {extremes.low:g} to "
                f"{extremes.high:g}, which are neither from 0 to 1 nor from 0 to 255: say which values "
                "become black and white by --data.value-range LOW HIGH"
            )
    high = max(extremes.high for extremes in floating.values())
    dark = [index for index, extremes in floating.items() if 0 < extremes.high <= 1]
    if high > 1 and dark:
        bright = next(index for index, extremes in floating.items() if extremes.high > 1)
        raise UserError(
            f"{files.describe(dark[0])} has floating-point numbers up to {floating[dark[0]].high:g} and "
            f"{files.describe(bright)} up to {floating[bright].high:g}, so it is not clear which value is "
            "white: say --data.value-range LOW HIGH"
        )
    top = 1.0 if high <= 1 else 255.0
    form = replace(form, value_range=(0.0, top), bit_depth=form.bit_depth or FULL, found=True)
    return form, (
        f"{files.name}/{files.split}: {len(floating)} of {looked_at} files that were looked at have "
        f"floating-point numbers up to {high:g}, so these are read as of 0 to {top:g} (--data.value-range "
        "states another range)"
    )
