"""A picture of queries and their nearest neighbours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from siamtransfer.data import ImageSet
from siamtransfer.utils.files import atomic_write
from siamtransfer.views.crop import centre_crop

FRAME = 3  # pixels around every picture
LARGEST = 128  # pixels a side; larger images are shown at this size
SAME, OTHER, QUERY = (60, 170, 90), (210, 60, 60), (255, 255, 255)


def write_neighbours(
    path: Path,
    images: tuple[ImageSet, ImageSet | None],
    indices: Tensor,
    *,
    rows: int = 12,
    columns: int = 10,
) -> None:
    """Writes a PNG: a row for each of `rows` queries taken evenly from the set, the query first, then its
    nearest neighbours, framed in green where they have the query's label and in red where not.

    `images` are the bank's set and the queries', None where the queries are the bank; indices int64[Q, k] are
    those of `search`.
    """
    bank, queries = images[0], images[1] or images[0]
    assert bank.labels is not None
    assert queries.labels is not None
    columns = min(columns, indices.shape[1])
    chosen = np.linspace(0, len(queries) - 1, min(rows, len(queries))).round().astype(int)
    side = min(LARGEST, max(queries.image_size or LARGEST, 32))
    cell = side + 2 * FRAME
    sheet = np.full((len(chosen) * cell, (1 + columns) * cell, 3), 255, np.uint8)
    for row, query in enumerate(chosen.tolist()):
        pictures = [(queries.image(query), QUERY)]
        for neighbour in indices[query, :columns].tolist():
            same = _share_label(queries.labels[query], bank.labels[neighbour])
            pictures.append((bank.image(neighbour), SAME if same else OTHER))
        for column, (image, colour) in enumerate(pictures):
            frame = sheet[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell]
            frame[:] = colour
            frame[FRAME:-FRAME, FRAME:-FRAME] = centre_crop(image, side, side).permute(1, 2, 0).numpy()
    with atomic_write(path) as file:
        Image.fromarray(sheet).save(file, format="PNG")


def _share_label(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two labels are equal, or of several labels (0 and 1 for each class) any is in both."""
    return bool((first * second).any() if first.ndim else first == second)
