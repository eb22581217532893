"""The form of the files of a set, settled when the set is opened: as stated, or as its files show it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from siamtransfer.data.depth import remark_on_set
from siamtransfer.data.dicom import OWN_WINDOWS, WINDOWS
from siamtransfer.data.first_look import Files, Look, look_at
from siamtransfer.data.found_depth import find_depth
from siamtransfer.data.orientation import UPRIGHT
from siamtransfer.data.pixel_form import BACKGROUNDS, DEPTH_OPTIONS, PixelForm
from siamtransfer.data.tiff import TiffHeader
from siamtransfer.data.unreadable import UnreadableImage, WrongChannels
from siamtransfer.utils.text import printable


class FormedFiles(Files, Protocol):
    """A set of image files whose form is settled here."""

    form: PixelForm
    remark: str | None

    def image(self, index: int) -> np.ndarray: ...


def settle_form(files: FormedFiles, form: PixelForm, *, stated: bool) -> None:
    """Gives a set its form, and says what a user should know of it; `stated` says that the number of channels
    is the user's.

    Where it is not, TIFF files of more than four channels, which are never RGB, decide it, with a line that
    says so. So do files of more than eight bits and of floating-point numbers decide their depth.

    Raises:
        WrongChannels: two files have another number of channels, or the first has not the stated one.
        UserError: see `find_depth`.
    """
    where = f"{files.name}/{files.split}"
    looks = look_at(files, form)
    headers = {index: look.header for index, look in looks.items() if look.header is not None}
    remarks = []
    if not stated:
        first = next((index for index, header in headers.items() if header.samples > 4), None)
        if first is not None:
            form = replace(form, channels=headers[first].samples)
            remarks.append(
                f"{where}: its images have {form.channels} channels, as {_named(files, first)} has, and no "
                "other number is read (--data.channels states it)"
            )
    found = find_depth(files, form, looks)
    files.form = form = found.form
    remarks += found.remarks
    if form.channels != 3:
        _check(files, headers)
    elif not stated:
        remarks += _left_out(files, where, headers)
    remarks += [*_turned(files, where, looks), *_transparent(files, where, looks, stated=stated)]
    for remark in remarks:
        remark_on_set(remark, remark)
    if windowed := _windowed(files, where, looks):
        remark_on_set(WINDOWS, windowed)
        remarks.append(windowed)
    files.remark = "; ".join(remarks) or None


def _windowed(files: FormedFiles, where: str, looks: dict[int, Look]) -> str:
    """The remark on DICOM files that no stated window shows; empty where there are none."""
    found = [index for index, look in looks.items() if look.dicom]
    if not found or files.form.value_range is not None:
        return ""
    return (
        f"{where}: {len(found)} of {len(looks)} files that were looked at, such as "
        f"{_named(files, found[0])}, are DICOM files, shown as viewers do: {OWN_WINDOWS}"
    )


def found_options(images: object) -> dict[str, Any]:
    """The options that state the depth which was found for a set; nothing where none was found."""
    form = getattr(images, "form", None)
    if form is None or not form.found:
        return {}
    return {key: value for key, value in form.as_options().items() if key in DEPTH_OPTIONS}


def _check(files: FormedFiles, headers: dict[int, TiffHeader]) -> None:
    """Raises WrongChannels where a file that was looked at has not the channels of the set."""
    for index, header in headers.items():
        single_page = not header.more_pages
        if single_page and header.samples != files.form.channels:
            raise WrongChannels(
                f"{files.describe(index)} has {header.samples} channels, and the images of "
                f"{files.name}/{files.split} have {files.form.channels}: take it out of the set, or say the "
                "number of all in --data.channels"
            )
    try:
        files.image(0)
    except UnreadableImage:  # a damaged file is counted, or refused, where it is used
        return


def _named(files: Files, index: int) -> str:
    return printable(files.relative_name(index))


def _left_out(files: FormedFiles, where: str, headers: dict[int, TiffHeader]) -> list[str]:
    """The remarks on channels and pages that RGB images leave out."""
    remarks = []
    shown = files.form.background is not None
    left = [
        index
        for index, header in headers.items()
        if header.samples in (2, 4) and not header.inks and not (header.alpha and shown)
    ]
    if left:
        samples, alpha = headers[left[0]].samples, headers[left[0]].alpha
        remarks.append(
            f"{where}: {len(left)} of the files that were looked at, such as {_named(files, left[0])}, "
            f"have {samples} channels, and the last is left out{' as alpha' if alpha else ''}; "
            f"--data.channels {samples} takes it"
        )
    paged = [index for index, header in headers.items() if header.more_pages]
    if paged:
        remarks.append(
            f"{where}: {len(paged)} of the files that were looked at, such as {_named(files, paged[0])}, "
            "have several pages, of which the first is taken; --data.channels N takes N pages as channels"
        )
    return remarks


def _turned(files: FormedFiles, where: str, looks: dict[int, Look]) -> list[str]:
    """The remark on images that are turned."""
    turned = [index for index, look in looks.items() if look.orientation != UPRIGHT]
    if not turned or files.form.orientation == "stored":
        return []
    return [
        f"{where}: {len(turned)} of {len(looks)} files that were looked at, such as "
        f"{_named(files, turned[0])}, are turned as their EXIF orientation says "
        "(--data.orientation stored takes them as they lie in the file)"
    ]


def _transparent(files: FormedFiles, where: str, looks: dict[int, Look], *, stated: bool) -> list[str]:
    """The remarks on transparent pixels and on images that show nothing on the background."""
    transparent = [index for index, look in looks.items() if look.transparent]
    if not transparent or files.form.background is None:
        return []
    name = files.form.background_name
    channel = "" if stated else "; --data.channels 4 takes alpha of RGBA files as a channel"
    remarks = [
        f"{where}: {len(transparent)} of {len(looks)} files that were looked at, such as "
        f"{_named(files, transparent[0])}, have transparent pixels, which show {name} "
        f"(--data.background states another colour{channel})"
    ]
    lost = [index for index, look in looks.items() if look.lost_on_background]
    if lost:
        other = "white" if files.form.background == BACKGROUNDS["black"] else "black"
        remarks.append(
            f"{where}: {len(lost)} of these, such as {_named(files, lost[0])}, show nothing on {name}, for "
            f"their visible pixels have that colour: --data.background {other} shows them"
        )
    return remarks
