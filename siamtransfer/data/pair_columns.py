"""The columns of a set of pairs, chosen and with the form of their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from siamtransfer.data.files_form import settle_form
from siamtransfer.data.folders import FileImages
from siamtransfer.data.imageset import ArrayImages, ImageSet
from siamtransfer.data.pairs import PairImages
from siamtransfer.data.pixel_form import PixelForm
from siamtransfer.utils.errors import UserError


def settle_columns(
    pairs: PairImages,
    columns: Sequence[str | int] | None,
    form: PixelForm,
    channels: int | None,
    column_channels: Sequence[int] | None,
) -> ImageSet:
    """The columns that are wanted (all where `columns` is None), read by `form` with `channels` or, each its
    own, `column_channels`. What a column leaves open of its form is found in its own files.

    Raises:
        UserError: there is no such column, a column has not these channels, or they are stated twice.
    """
    chosen = pairs if columns is None else pairs.select(columns)
    parts = chosen.columns if isinstance(chosen, PairImages) else (chosen,)
    if column_channels is not None and channels is not None:
        raise UserError(
            "data.channels and data.column_channels both state the channels: leave data.channels out, which "
            "is for all columns alike"
        )
    if column_channels is not None and len(column_channels) != len(parts):
        raise UserError(
            f"data.column_channels is {list(column_channels)}, and there are {len(parts)} columns: give a "
            "number for each"
        )
    each = [channels] * len(parts) if column_channels is None else list(column_channels)
    for part, stated in zip(parts, each, strict=True):
        if stated is not None and stated < 1:
            raise UserError(f"data.column_channels: a column has one channel or more, not {stated}")
        if isinstance(part, FileImages):
            own = form if stated is None else replace(form, channels=stated)
            settle_form(part, own, stated=stated is not None)
        elif isinstance(part, ArrayImages) and stated is not None:
            part.keep_channels(stated)
    return chosen
