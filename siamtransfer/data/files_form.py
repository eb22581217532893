"""The form of the files of a set, settled when the set is opened: as stated, or as its files show it."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from siamtransfer.data import depth
from siamtransfer.data.pixel_form import PixelForm
from siamtransfer.data.tiff import TiffHeader, tiff_header
from siamtransfer.data.unreadable import UnreadableImage, WrongChannels

_PNG_CHANNELS = {0: 1, 4: 2, 2: 3, 6: 4}  # by its types of colour; a palette is none of these


class FormedFiles(depth.Files, Protocol):
    """A set of image files whose form is settled here."""

    form: PixelForm
    remark: str | None

    def image(self, index: int) -> np.ndarray: ...


def settle_form(files: FormedFiles, form: PixelForm, *, stated: bool) -> None:
    """Gives a set its form, and says what a user should know of it; `stated` says that the number of channels
    is the user's.

    Where it is not, TIFF files of more than four channels, which are never RGB, decide it, with a line that
    says so. Up to `depth.PROBED` files are looked at.

    Raises:
        WrongChannels: two files have another number of channels, or the first has not the stated one.
    """
    where = f"{files.name}/{files.split}"
    headers = _headers(files)
    remarks = []
    if not stated:
        first = next((index for index, header in headers.items() if header.samples > 4), None)
        if first is not None:
            form = replace(form, channels=headers[first].samples)
            remarks.append(
                f"{where}: its images have {form.channels} channels, as {files.describe(first)} has, and no "
                "other number is read (--data.channels states it)"
            )
    files.form = form
    if form.channels != 3:
        _check(files, headers)
    elif not stated:
        remarks += _left_out(files, where, headers)
    for remark in remarks:
        depth.remark_once(remark, remark)
    probed = form.channels in (1, 3) and form.bit_depth is None and form.value_range is None
    dim = depth.remark_on_files(files) if probed else None
    files.remark = "; ".join([*remarks, *([dim] if dim else [])]) or None


def _headers(files: depth.Files) -> dict[int, TiffHeader]:
    """The headers of those TIFF files that are looked at, by their indices."""
    headers = {}
    for index in depth.evenly(len(files), depth.PROBED):
        source = files.deep_source(index)
        header = None if source is None else _header(source)
        if header is not None:
            headers[index] = header
    return headers


def _header(source: str | io.BytesIO) -> TiffHeader | None:
    """The header of a TIFF file, or what that of a PNG says in the same terms; None for any other file."""
    try:
        with source if isinstance(source, io.BytesIO) else Path(source).open("rb") as stream:
            start = stream.read(26)
            if start.startswith(b"\x89PNG") and len(start) == 26:
                samples = _PNG_CHANNELS.get(start[25])
                return None if samples is None else TiffHeader(samples, start[24], False, False)
            stream.seek(0)
            return tiff_header(stream)
    except OSError:  # reading the image will name the file
        return None


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


def _left_out(files: depth.Files, where: str, headers: dict[int, TiffHeader]) -> list[str]:
    """The remarks on channels and pages that RGB images leave out."""
    remarks = []
    alpha = [index for index, header in headers.items() if header.samples in (2, 4) and not header.inks]
    if alpha:
        samples = headers[alpha[0]].samples
        remarks.append(
            f"{where}: {len(alpha)} of the files that were looked at, such as {files.describe(alpha[0])}, "
            f"have {samples} channels, and the last is left out as alpha; --data.channels {samples} takes it"
        )
    paged = [index for index, header in headers.items() if header.more_pages]
    if paged:
        remarks.append(
            f"{where}: {len(paged)} of the files that were looked at, such as {files.describe(paged[0])}, "
            "have several pages, of which the first is taken; --data.channels N takes N pages as channels"
        )
    return remarks
