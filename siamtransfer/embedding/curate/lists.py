"""Lists of paths, as `pretrain --data.name list` reads them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from siamtransfer.data.listing import has_image_ending
from siamtransfer.embedding.tables.csv_table import BYTES_AS_THEY_ARE
from siamtransfer.embedding.tables.table import Row
from siamtransfer.utils.files import atomic_write


def write_list(path: Path, rows: Iterable[Row], *, classes: bool) -> list[str]:
    """Writes a path on each line, with the class behind it if `classes`; returns the paths that hold a line
    break, which no list can name."""
    left_out = []
    with atomic_write(path) as file:
        for row in rows:
            if "\n" in row.path or "\r" in row.path:
                left_out.append(row.path)
                continue
            line = f"./{row.path}" if row.path[0] == "#" or row.path[0].isspace() else row.path
            if classes:
                line += f" {row.class_name}"
            file.write(f"{line}\n".encode(errors=BYTES_AS_THEY_ARE))
    return left_out


def classes_fit(rows: Sequence[Row]) -> bool:
    """Whether a list can say the class of every image: it has one, and its path ends as an image's."""
    return all(
        row.class_name is not None
        and row.class_name == row.class_name.strip()
        and not {"\n", "\r"} & set(row.class_name)
        and not has_image_ending(row.class_name)
        and has_image_ending(row.path)
        for row in rows
    )
