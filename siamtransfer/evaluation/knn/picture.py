"""A picture of queries and their nearest neighbours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from siamtransfer.data import ImageSet
from siamtransfer.evaluation.dense.sheet import Cell, Sheet, in_colours
from siamtransfer.utils.captions import short_name

SAME, OTHER = (60, 170, 90), (210, 60, 60)


def write_neighbours(
    path: Path,
    images: tuple[ImageSet, ImageSet | None],
    indices: Tensor,
    similarities: Tensor | None = None,
    *,
    rows: int = 12,
    columns: int = 10,
) -> None:
    """Writes a PNG: a row for each of `rows` queries taken evenly from the set, the query first, then its
    nearest neighbours, framed in green where they have the query's label and in red where not. Above each
    stand its name and class, and of a neighbour its similarity.

    `images` are the bank's set and the queries', None where the queries are the bank; indices int64[Q, k]
    and similarities[Q, k] are those of `search`.

    Raises:
        UserError: the file cannot be written.
        UnreadableImage: an image can no longer be read.
    """
    bank, queries = images[0], images[1] or images[0]
    assert bank.labels is not None
    assert queries.labels is not None
    chosen = np.linspace(0, len(queries) - 1, min(rows, len(queries))).round().astype(int)
    drawn = []
    for query in chosen.tolist():
        cells = [_cell(queries, query, _class(queries, query))]
        for column, neighbour in enumerate(indices[query, :columns].tolist()):
            same = _share_label(queries.labels[query], bank.labels[neighbour])
            note = _class(bank, neighbour)
            if similarities is not None:
                note = f"{float(similarities[query, column]):.3f}  {note}"
            cells.append(_cell(bank, neighbour, note)._replace(frame=SAME if same else OTHER))
        drawn.append(cells)
    head = [
        f"queries of {queries.name}/{queries.split}, and their nearest in {bank.name}/{bank.split}",
        "green: of the query's class; red: of another; the number is the similarity of the features",
    ]
    Sheet(head, drawn).write(path)


def _cell(images: ImageSet, index: int, note: str) -> Cell:
    return Cell(in_colours(images.image(index)), short_name(images.describe(index)), note=note)


def _class(images: ImageSet, index: int) -> str:
    assert images.labels is not None
    label = images.labels[index]
    numbers = np.flatnonzero(label).tolist() if label.ndim else [int(label)]
    names = images.classes
    return ", ".join(names[number] if number < len(names) else str(number) for number in numbers)


def _share_label(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two labels are equal, or of several labels (0 and 1 for each class) any is in both."""
    return bool((first * second).any() if first.ndim else first == second)
