"""Images that come as pairs: each row of a table shows one thing in two or more columns.

Two cameras, visible light and infrared, two frames of one video. A column is an image set of its own, and all
columns have the same rows. As an ImageSet, pairs are their first column; who wants the others asks for `row`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from siamtransfer.data.imageset import ImageSet, channels_of, content_fingerprint, fingerprint_of_arrays
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import first_few


class PairImages:
    """N rows of K images each, as an ImageSet of the images of the first column.

    Attributes:
        columns: K image sets of N images; image i of each shows thing i.
        column_names: of the columns, all different.
        labels, classes: those of the first column, which are those of all.
        image_size: the side where all images of all columns are squares of it, else None.
        set_remarks: how the pairs were found, where that is not plain.
    """

    def __init__(
        self,
        name: str,
        split: str,
        columns: Sequence[ImageSet],
        column_names: Sequence[str],
        remarks: Sequence[str] = (),
    ):
        assert len(columns) == len(column_names) > 1
        assert len({len(column) for column in columns}) == 1
        self.name, self.split = name, split
        self.columns, self.column_names = tuple(columns), tuple(column_names)
        self.labels, self.classes = columns[0].labels, columns[0].classes
        sizes = {column.image_size for column in columns}
        self.image_size = sizes.pop() if len(sizes) == 1 else None
        self.set_remarks = tuple(remarks)

    @property
    def channels(self) -> int:
        """C of the first column."""
        return channels_of(self.columns[0])

    @property
    def column_channels(self) -> tuple[int, ...]:
        """C of each column."""
        return tuple(map(channels_of, self.columns))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the fingerprints of the columns, in their order."""
        return fingerprint_of_arrays(text="\n".join(column.fingerprint for column in self.columns))

    @property
    def content_fingerprint(self) -> str:
        """SHA-256 over the content fingerprints of the columns, in their order."""
        return fingerprint_of_arrays(text="\n".join(map(content_fingerprint, self.columns)))

    def __len__(self) -> int:
        return len(self.columns[0])

    def image(self, index: int) -> np.ndarray:
        """The image of row `index` in the first column as uint8[H,W,C]; raises UnreadableImage."""
        return self.columns[0].image(index)

    def row(self, index: int) -> list[np.ndarray]:
        """The K images of row `index`, each uint8[H,W,C] with the C of its column; raises UnreadableImage."""
        return [column.image(index) for column in self.columns]

    def describe(self, index: int) -> str:
        """The origins of the images of row `index`."""
        return " and ".join(column.describe(index) for column in self.columns)

    def select(self, wanted: Sequence[str | int]) -> ImageSet:
        """The columns that `wanted` names, by name or by number from 1, in this order; one column alone is
        an image set of its own.

        Raises:
            UserError: there is no such column, one is named twice, or none is named.
        """
        numbers = [column_number(str(name), self.column_names, "data.columns") for name in wanted]
        if not numbers or len(set(numbers)) < len(numbers):
            raise UserError(
                f"data.columns is {list(wanted)}, but must name different columns of "
                f"{', '.join(self.column_names)}, one at least"
            )
        if len(numbers) == 1:
            return self.columns[numbers[0]]
        return PairImages(
            self.name,
            self.split,
            [self.columns[number] for number in numbers],
            [self.column_names[number] for number in numbers],
            self.set_remarks,
        )


def column_number(wanted: str, names: Sequence[str], key: str) -> int:
    """The place from 0 of the column that `wanted` names, by its name or by its number from 1; `key` is the
    option that names it.

    Raises:
        UserError: there is no such column.
    """
    if wanted in names:
        return list(names).index(wanted)
    if wanted.isascii() and wanted.isdigit() and 1 <= int(wanted) <= len(names):
        return int(wanted) - 1
    raise UserError(
        f"{key}: there is no column {wanted}; the columns of images are {first_few(list(names))}, or by "
        f"number 1 to {len(names)}"
    )
