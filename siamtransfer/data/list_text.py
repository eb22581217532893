"""What the lines of a list say: a path and a label each, whatever program wrote the list.

A list is a plain one (a path on each line and, behind blanks, a label) or a table (CSV, TSV or with
semicolons, with or without a header, in any order of columns). It is UTF-8, or UTF-16 or UTF-32 with its
mark. Which of them it is follows from the lines and from the files that exist; where two readings are
possible the list is refused.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from siamtransfer.data.list_file import read_list_text, require_lines
from siamtransfer.data.listing import ENDINGS, has_image_ending
from siamtransfer.data.parts import part_of
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import first_few, printable

LINE = re.compile(rf"(?P<path>.*\.(?:{'|'.join(sorted(ENDINGS))}))(?:\s+(?P<label>.*))?", re.IGNORECASE)
SAMPLE = 50  # lines that decide what a list is
TABLE_ENDINGS = {".csv": (",", ";", "\t"), ".tsv": ("\t",)}
DELIMITERS = ("\t", ",", ";")
NAMES = {"\t": "tabs", ",": "commas", ";": "semicolons", " ": "blanks"}
PATH_WORDS = {
    "path", "paths", "file", "files", "filename", "filenames", "filepath", "image", "images", "img",
    "imagepath", "imgpath", "imagefile", "imagename", "imagefilename", "imageid", "imgid", "imgname",
    "id", "name", "fname", "photo", "picture", "uri", "relativepath",
}  # fmt: skip
"""Headers of a column of paths, in lower case without blanks, `_` and `-`."""
LABEL_WORDS = {
    "label", "labels", "class", "classes", "classname", "classid", "classlabel", "labelname", "labelid",
    "category", "categoryid", "categoryname", "target", "targets", "y", "species", "breed", "diagnosis",
}  # fmt: skip
"""Headers of a column of labels."""


@dataclass(frozen=True)
class Entry:
    """A line of a list: its number, the path as it stands there, and the label.

    `label` is None where the list has no labels, and empty where it has a column of them and this line none.
    Bytes that are not UTF-8 are surrogates, as in file names.
    """

    line: int
    path: str
    label: str | None


@dataclass(frozen=True)
class Probe:
    """Whether a text of a list names a file: `exists` asks for the path as it is written, `is_found` also for
    a name that says the file in another way (without its ending, in other letters, without its folder)."""

    exists: Callable[[str], bool]
    is_found: Callable[[str], bool]


def read_entries(list_path: Path, probe: Probe) -> tuple[list[Entry], list[str]]:
    """The lines of a list that are neither blank nor comments, and remarks on how they were read.

    Raises:
        UserError: the list cannot be read, is no text or empty, or its lines can be understood in two ways;
            names the line.
    """
    where = printable(list_path)
    lines = re.split(r"\r\n|\n|\r", read_list_text(list_path))
    require_lines(lines, where)
    for number, line in enumerate(lines, start=1):
        if line.lstrip().startswith("#"):
            if probe.exists(line.strip()):
                raise UserError(
                    f"line {number} of {where} begins with #, as a comment does, and names a file that "
                    "exists; write ./ before it"
                )
            lines[number - 1] = ""
    delimiter = None
    if stated := re.fullmatch(r"sep=(.)", lines[0].strip()):  # written by spreadsheets for themselves
        delimiter, lines[0] = stated[1], ""
    sample = [line for line in lines if line.strip()][:SAMPLE]
    if not sample:
        raise UserError(f"the list {where} is empty; it has the path of one image on each line")
    delimiter = delimiter or _find_delimiter(list_path.suffix.lower(), sample, probe)
    if delimiter is None:
        return _plain(lines), []
    return _Table(lines, delimiter, where, probe).entries()


def _plain(lines: Sequence[str]) -> list[Entry]:
    entries = []
    for number, line in enumerate(lines, start=1):
        if line := line.strip():
            match = LINE.fullmatch(line)
            entries.append(
                Entry(number, match["path"], match["label"]) if match else Entry(number, line, None)
            )
    return entries


def _find_delimiter(ending: str, sample: Sequence[str], probe: Probe) -> str | None:
    """What stands between the columns of a table; None for a plain list."""
    possible = TABLE_ENDINGS.get(ending, DELIMITERS)
    if len(sample) > 1 and not probe.exists(sample[0].strip()):
        for delimiter in possible:
            cells = (_sample_rows(sample[:1], delimiter) or [[]])[0]
            header = any(_word(cell) in PATH_WORDS for cell in cells)
            if header and (len(cells) > 1 or ending in TABLE_ENDINGS):
                return delimiter
    for line in sample:
        match = LINE.fullmatch(line.strip())
        if probe.exists(line.strip()) or (match and match["label"] and probe.exists(match["path"])):
            return None
    if all(line.lstrip().startswith('"') for line in sample):
        possible = (*possible, " ")
    for delimiter in possible:
        rows = _sample_rows(sample, delimiter)
        if rows and len(rows[0]) > 1 and {len(row) for row in rows} == {len(rows[0])}:
            body = rows[1:] if len(rows) > 1 and not any(map(has_image_ending, rows[0])) else rows
            if ending in TABLE_ENDINGS or any(map(_all_images, zip(*body, strict=True))):
                return delimiter
    if ending not in TABLE_ENDINGS:
        return "," if all(line.strip().startswith('"') for line in sample) else None
    return next((delimiter for delimiter in possible if delimiter in sample[0]), possible[0])


def _sample_rows(sample: Sequence[str], delimiter: str) -> list[list[str]]:
    try:
        return list(csv.reader(sample, delimiter=delimiter, skipinitialspace=True, strict=True))
    except csv.Error:
        return []


def _all_images(cells: Sequence[str]) -> bool:
    return all(has_image_ending(cell.strip()) for cell in cells)


def _word(cell: str) -> str:
    return re.sub(r"[\s_-]", "", cell).lower()


class _Table:
    """The rows of a table, and which of its columns are the paths and the labels."""

    def __init__(self, lines: Sequence[str], delimiter: str, where: str, probe: Probe):
        self.where, self.probe, self.remarks = where, probe, list[str]()
        reader = csv.reader(
            io.StringIO("\n".join(lines)), delimiter=delimiter, skipinitialspace=True, strict=True
        )
        self.rows: list[tuple[int, list[str]]] = []
        try:
            for row in reader:
                if cells := [cell.strip() for cell in row]:
                    self.rows.append((reader.line_num, cells))
        except csv.Error as error:
            raise UserError(
                f"line {reader.line_num} of {where} is no row of a table ({error}); close its quotes, and "
                'write a quote inside them twice ("")'
            ) from error
        width = len(self.rows[0][1])
        for number, cells in self.rows:
            if len(cells) != width:
                raise UserError(
                    f"line {number} of {where} has {len(cells)} columns, divided by {NAMES[delimiter]}, and "
                    f'the first row has {width}; put a path or label that holds a "{delimiter}" in quotes'
                )
        self.header = self._take_header()

    def entries(self) -> tuple[list[Entry], list[str]]:
        """A path and a label for each row, and remarks."""
        if not self.rows:
            raise UserError(f"the list {self.where} has a header and no rows; write a row for each image")
        path = self._path_column()
        label = self._label_column(path)
        for number, cells in self.rows:
            if not cells[path]:
                raise UserError(f"line {number} of {self.where} has no path; take the row out")
        return [
            Entry(number, cells[path], None if label is None else cells[label]) for number, cells in self.rows
        ], self.remarks

    def _take_header(self) -> list[str] | None:
        """The first row, which is taken off, where it names the columns."""
        cells = self.rows[0][1]
        if any(has_image_ending(cell) for cell in cells):
            return None
        columns = zip(*(row for _, row in self.rows[1 : SAMPLE + 1]), strict=True)
        known = any(_word(cell) in PATH_WORDS | LABEL_WORDS for cell in cells)
        if not known and not any(map(_all_images, columns)):
            return None
        if any(cell and self.probe.is_found(cell) for cell in cells):
            return None
        self.rows = self.rows[1:]
        return cells

    def _path_column(self) -> int:
        width = len(self.rows[0][1])
        header = self.header or [""] * width
        named = [column for column in range(width) if _word(header[column]) in PATH_WORDS]
        if len(named) == 1:
            return named[0]
        fitting = [column for column in named or range(width) if self._holds_paths(column)]
        if len(fitting) == 1:
            return fitting[0]
        what = "names images in more than one column" if fitting else "has no column that names images"
        raise UserError(
            f"{self.where} {what} (its first row is {printable(first_few(self.rows[0][1]))}); write a header "
            "line such as path,label, and paths that begin in --data.root"
        )

    def _holds_paths(self, column: int) -> bool:
        cells = [cells[column] for _, cells in self.rows[:SAMPLE]]
        return _all_images(cells) or all(cell and self.probe.is_found(cell) for cell in cells)

    def _label_column(self, path: int) -> int | None:
        header = self.header
        others = [column for column in range(len(self.rows[0][1])) if column != path]
        if header is None:
            if len(others) > 1:
                raise UserError(
                    f"{self.where} has {len(others) + 1} columns and no header line that says which are the "
                    "paths and the labels; write one, such as path,label,source"
                )
            return others[0] if others else None
        others = [column for column in others if header[column]]  # an index without a name is none
        named = [column for column in others if _word(header[column]) in LABEL_WORDS]
        chosen = self._same_labels(named) if named else others
        if len(chosen) > 1:
            columns = printable(first_few([header[column] for column in chosen]))
            raise UserError(
                f"{self.where} has several columns that may be the labels ({columns}); name the one that is "
                "label, and leave out the others"
            )
        self._remark_on([column for column in others if column not in chosen], header)
        return chosen[0] if chosen else None

    def _remark_on(self, columns: Sequence[int], header: Sequence[str]) -> None:
        """Remarks on columns that are not read."""
        if columns:
            names = printable(first_few([header[column] for column in columns]))
            self.remarks.append(f"{self.where}: columns that are not read: {names}")
        for column in columns:
            values = sorted({cells[column] for _, cells in self.rows})
            if len(values) > 1 and all(map(part_of, values)):
                self.remarks.append(
                    f"{self.where}: the column {printable(header[column])} names parts of the set "
                    f"({first_few(values)}), and the images of all are taken together; write a list for each"
                )

    def _same_labels(self, columns: list[int]) -> list[int]:
        """One of the columns where all mean the same, such as numbers and names: one of names."""
        if len(columns) < 2:
            return columns
        pairs = {tuple(cells[column] for column in columns) for _, cells in self.rows}
        if any(len({pair[place] for pair in pairs}) != len(pairs) for place in range(len(columns))):
            return columns
        names = [column for column in columns if not all(row[column].isdigit() for _, row in self.rows)]
        return (names or columns)[:1]
