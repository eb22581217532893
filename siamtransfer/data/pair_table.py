"""Tables whose rows name images of one thing: a path in each of two or more columns, and perhaps a label.

    rgb,infrared,label
    a/1.png,b/1.png,person

Columns are divided by commas, semicolons or tabs, with a header or without. A column whose cells all end as
images do holds paths. Of the others one may hold labels: that whose header says so, or, without a header, the
only one.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from siamtransfer.data.folders import FileImages
from siamtransfer.data.label_table import LabelTable, ListedFiles, table_of
from siamtransfer.data.list_file import read_list_text, require_lines
from siamtransfer.data.list_text import LABEL_WORDS, NAMES, TABLE_ENDINGS, Entry
from siamtransfer.data.listing import has_image_ending, require_folder
from siamtransfer.data.lists import read_labels
from siamtransfer.data.pairs import PairImages
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import first_few, printable

_EXAMPLE = "write a header such as left,right,label and rows such as a/1.png,b/1.png,cat"


@dataclass(frozen=True)
class _Rows:
    """The cells of a table.

    Attributes:
        header: a name for each column; the numbers from 1 where the table has none.
        named: whether the names are the table's.
        cells: the cells of each row.
        lines: the line of each row.
    """

    header: list[str]
    named: bool
    cells: list[list[str]]
    lines: list[int]

    def column(self, number: int) -> list[str]:
        return [row[number] for row in self.cells]


def open_pair_table(
    list_file: str | Path, root: str | Path | None = None, *, name: str = "pairs", split: str = "train"
) -> PairImages:
    """The pairs of a table, in its order. Paths begin in `root`, by default the table's own folder, or at
    `/`; see `ListedFiles` for what else is understood. Labels are read as those of lists.

    Raises:
        UserError: the table cannot be read, has not two columns of images, or a row of another length; a file
            is missing, or named twice in one column or one row. Names the line.
    """
    path = Path(list_file).expanduser().absolute()
    base = path.parent if root is None else require_folder(root)
    rows = _read_rows(path)
    of_images = [number for number in range(len(rows.header)) if _holds_images(path, rows, number)]
    if len(of_images) < 2:
        raise UserError(
            f"{printable(path)} has {len(of_images)} column{'s' * (len(of_images) != 1)} whose cells all "
            f"name images, and pairs need two: {_EXAMPLE}"
        )
    names = [rows.header[number] for number in of_images]
    tables = [_files(path, base, rows, number) for number in of_images]
    _refuse_same_in_row(path, tables)
    others = [number for number in range(len(rows.header)) if number not in of_images]
    label, remarks = _label_column(path, rows, others)
    remarks = [*dict.fromkeys(remark for table in tables for remark in table.remarks), *remarks]
    labels, classes = None, list[str]()
    if label is not None:
        labelled = _with_labels(path, base, rows, of_images[0], label)
        labels, classes, more = read_labels(path, labelled)
        remarks += [*labelled.remarks, *more]
    columns = [
        FileImages(f"{name}:{column}", split, table_of(base, table.paths), labels=labels, classes=classes)
        for column, table in zip(names, tables, strict=True)
    ]
    remarks = list(dict.fromkeys(remarks))
    for column in columns:  # which may stand alone
        column.set_remarks = tuple(remarks)
    return PairImages(name, split, columns, names, remarks)


def _read_rows(path: Path) -> _Rows:
    where = printable(path)
    lines = re.split(r"\r\n|\n|\r", read_list_text(path))
    require_lines(lines, where)
    lines = ["" if line.lstrip().startswith("#") else line for line in lines]
    filled = [line for line in lines if line.strip()]
    if not filled:
        raise UserError(f"the table {where} is empty: {_EXAMPLE}")
    delimiter = _delimiter(path, filled[0])
    reader = csv.reader(
        io.StringIO("\n".join(lines)), delimiter=delimiter, skipinitialspace=True, strict=True
    )
    cells: list[list[str]] = []
    numbers: list[int] = []
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                cells.append([cell.strip() for cell in row])
                numbers.append(reader.line_num)
    except csv.Error as error:
        raise UserError(
            f"line {reader.line_num} of {where} is no row of a table ({error}); close its quotes, and write "
            'a quote inside them twice ("")'
        ) from error
    width = len(cells[0])
    for number, row in zip(numbers, cells, strict=True):
        if len(row) != width:
            raise UserError(
                f"line {number} of {where} has {len(row)} column{'s' * (len(row) != 1)}, divided by "
                f"{NAMES[delimiter]}, and the first row has {width}: give each row a path for each column"
            )
    if any(has_image_ending(cell) for cell in cells[0]):
        return _Rows([str(number + 1) for number in range(width)], False, cells, numbers)
    header = [cell or str(number + 1) for number, cell in enumerate(cells[0])]
    if len(set(header)) < width:
        twice = next(cell for cell in header if header.count(cell) > 1)
        raise UserError(
            f"the header of {where} names the column {printable(twice)} twice: rename one of them"
        )
    if len(cells) == 1:
        raise UserError(f"the table {where} has a header and no rows: write a row for each pair")
    return _Rows(header, True, cells[1:], numbers[1:])


def _delimiter(path: Path, line: str) -> str:
    """What divides the columns: of those that the file's ending allows the one that occurs most often in the
    first line."""
    possible = TABLE_ENDINGS.get(path.suffix.lower(), ("\t", ",", ";"))
    return max(possible, key=line.count)


def _holds_images(path: Path, rows: _Rows, number: int) -> bool:
    """Whether a column is one of paths: its cells, but for empty ones, end as images do.

    Raises:
        UserError: most of them do, so that the others are mistakes.
    """
    filled = [(line, cell) for line, cell in zip(rows.lines, rows.column(number), strict=True) if cell]
    others = [(line, cell) for line, cell in filled if not has_image_ending(cell)]
    if others and 2 * len(others) < len(filled):
        line, cell = others[0]
        raise UserError(
            f"line {line} of {printable(path)} has {printable(cell)} in the column {rows.header[number]}, of "
            f"which {len(filled) - len(others)} other cells end as images do: mend the path or remove the row"
        )
    return bool(filled) and not others


def _files(path: Path, base: Path, rows: _Rows, number: int) -> LabelTable:
    """The files of a column, found on disk."""
    entries = []
    for line, cell in zip(rows.lines, rows.column(number), strict=True):
        if not cell:
            raise UserError(
                f"line {line} of {printable(path)} has no path in the column {rows.header[number]}: take the "
                "row out, for a pair needs all of its images"
            )
        entries.append(Entry(line, cell, None))
    return ListedFiles(path, base).table(entries, [])


def _refuse_same_in_row(path: Path, tables: Sequence[LabelTable]) -> None:
    for line, *paths in zip(tables[0].lines, *(table.paths for table in tables), strict=True):
        if len(set(paths)) < len(paths):
            twice = next(each for each in paths if paths.count(each) > 1)
            raise UserError(
                f"line {line} of {printable(path)} names {printable(twice)} in two columns: a pair is of "
                "different files, and the set list has one file a line"
            )


def _label_column(path: Path, rows: _Rows, others: Sequence[int]) -> tuple[int | None, list[str]]:
    """The column of labels, and remarks on columns that are not read.

    Raises:
        UserError: several may be the labels.
    """
    named = [number for number in others if re.sub(r"[\s_-]", "", rows.header[number]).lower() in LABEL_WORDS]
    chosen = named if rows.named else list(others)
    if len(chosen) > 1:
        columns = printable(first_few([rows.header[number] for number in chosen]))
        raise UserError(
            f"{printable(path)} has several columns that may be the labels ({columns}): call the one that is "
            "label in a header line, and rename the others"
        )
    unread = [rows.header[number] for number in others if number not in chosen]
    remarks = (
        [f"{printable(path)}: columns that are not read: {printable(first_few(unread))}"] if unread else []
    )
    return (chosen[0] if chosen else None), remarks


def _with_labels(path: Path, base: Path, rows: _Rows, paths: int, labels: int) -> LabelTable:
    entries = [Entry(line, row[paths], row[labels]) for line, row in zip(rows.lines, rows.cells, strict=True)]
    return ListedFiles(path, base).table(entries, [])
