"""Which images of a database answer a query, read from a file: pickles and JSON of the revisited Oxford and
Paris sets, JSON and CSV of one's own.

A pickle can call any function while it is loaded. Here it may hold lists, dicts, numbers, texts and NumPy
arrays; another name in it ends the reading before anything runs.
"""

from __future__ import annotations

import csv
import hashlib
import json
import pickle
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from siamtransfer.checkpoints.pickles import read_numpy_pickle
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import first_few, printable

Box = tuple[float, float, float, float]
"""Left, top, right and bottom of a part of an image, in pixels."""
KINDS = ("easy", "hard", "junk")
SETTINGS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "easy": (("easy",), ("junk", "hard")),
    "medium": (("easy", "hard"), ("junk",)),
    "hard": (("hard",), ("junk", "easy")),
}
"""Of the revisited benchmark: the kinds of images that are positive, and those that are taken out."""
UNGRADED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {"all": (("easy",), ("junk",))}
"""Of a set whose positives are not told apart."""
LISTED = ("positives", *KINDS)
"""Lists of images in a file of one's own."""


@dataclass(frozen=True)
class Query:
    """A query and its images in the database by kind, each int64[n] of their numbers, rising.

    `image` is its path below the folder of the set; without a box it is the whole image.
    """

    image: str
    box: Box | None
    kinds: dict[str, np.ndarray]

    def of_kinds(self, kinds: Iterable[str]) -> np.ndarray:
        """int64[n]: the numbers of its images of these kinds."""
        return np.unique(np.concatenate([self.kinds[kind] for kind in kinds]))


@dataclass(frozen=True)
class _Row:
    """A query of a file of one's own, with the paths that it lists under each of LISTED."""

    image: str
    box: Box | None = None
    listed: dict[str, list[str]] = field(default_factory=lambda: {key: [] for key in LISTED})


@dataclass(frozen=True)
class GroundTruth:
    """The queries, the paths of the database's images below the folder of the set, and how it is scored."""

    queries: list[Query]
    database: list[str]
    settings: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = field(default_factory=lambda: SETTINGS)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all of it; the same for the same relations in any file."""
        queries = [
            [query.image, query.box, {kind: query.kinds[kind].tolist() for kind in KINDS}]
            for query in self.queries
        ]
        text = json.dumps([queries, self.database, sorted(self.settings)], ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()


def read_revisited(file: Path) -> GroundTruth:
    """The ground truth of a file gnd_NAME.pkl of the revisited benchmark, or of the same content as JSON;
    images are jpg/NAME.jpg.

    Raises:
        UserError: the file cannot be read, names code, or holds something else.
    """
    content = _read_json(file) if file.suffix == ".json" else _read_pickle(file)
    if not isinstance(content, dict) or not {"gnd", "imlist", "qimlist"} <= content.keys():
        raise UserError(f"{printable(file)} is no ground truth: it needs the entries gnd, imlist and qimlist")
    entries, names, query_names = (content[key] for key in ("gnd", "imlist", "qimlist"))
    if len(entries) != len(query_names) or not len(entries):
        raise UserError(
            f"{printable(file)} has {len(query_names)} queries in qimlist and {len(entries)} entries in gnd; "
            "there must be one for each, and one at least"
        )
    queries = []
    for number, (name, entry) in enumerate(zip(query_names, entries, strict=True)):
        where = f"{printable(file)}, query {number} ({name})"
        if not isinstance(entry, dict) or not {"bbx", *KINDS} <= entry.keys():
            raise UserError(f"{where}: it needs the entries bbx, easy, hard and junk")
        kinds = {kind: _numbers(entry[kind], len(names), f"{where}, {kind}") for kind in KINDS}
        queries.append(Query(f"jpg/{name}.jpg", read_box(entry["bbx"], where), kinds))
    return GroundTruth(queries, [f"jpg/{name}.jpg" for name in names])


def read_own(file: Path, images: list[str]) -> GroundTruth:
    """The ground truth of a JSON or CSV file of one's own, for the paths `images` below the set's folder.

    Without a list of the database it is all `images` that are no query.

    Raises:
        UserError: the file cannot be read, or names an image that is not there.
    """
    rows, database = _rows_of_csv(file) if file.suffix.lower() == ".csv" else _rows_of_json(file)
    where, there = printable(file), set(images)
    named = {row.image for row in rows}
    absent = sorted((named | set(database or ())) - there)
    if absent:
        raise UserError(
            f"{where} names {len(absent)} images that are not below --data.root: {first_few(absent)}"
        )
    database = [name for name in images if name not in named] if database is None else database
    if len(set(database)) < len(database) or not database:
        raise UserError(f"{where}: the database is empty or names an image twice")
    numbers = {name: number for number, name in enumerate(database)}
    graded = any(row.listed["easy"] or row.listed["hard"] for row in rows)
    if graded and any(row.listed["positives"] for row in rows):
        raise UserError(f"{where} has both positives and easy or hard images; give one of the two ways")
    queries = [_own_query(row, numbers, there, where) for row in rows]
    return GroundTruth(queries, database, SETTINGS if graded else UNGRADED)


def read_box(value: Any, where: str) -> Box:
    """Four numbers as a box.

    Raises:
        UserError: it is something else, or empty; `where` names the query.
    """
    try:
        left, top, right, bottom = (float(number) for number in value)
    except (TypeError, ValueError):
        raise UserError(f"{where}: its box is {value!r}, not left, top, right and bottom") from None
    if not (right > left and bottom > top) or not np.isfinite([left, top, right, bottom]).all():
        raise UserError(f"{where}: its box {[left, top, right, bottom]} is empty; right is above left")
    return left, top, right, bottom


def _own_query(row: _Row, numbers: dict[str, int], there: set[str], where: str) -> Query:
    """A query whose own image, where the database has it, is junk."""
    name, kinds = row.image, {}
    for kind in KINDS:
        listed = [*row.listed[kind], *(row.listed["positives"] if kind == "easy" else ())]
        unknown = sorted({image for image in listed if image not in numbers})
        if unknown:
            known = "is a query and not in the database: list the database to search it too"
            why = known if unknown[0] in there else "is not below --data.root"
            raise UserError(f"{where}, query {name}: {unknown[0]} {why}")
        kinds[kind] = np.unique(np.array([numbers[image] for image in listed], np.int64))
    if name in numbers:
        kinds["junk"] = np.union1d(kinds["junk"], [numbers[name]])
    for first, second in (("easy", "hard"), ("easy", "junk"), ("hard", "junk")):
        both = np.intersect1d(kinds[first], kinds[second])
        if len(both):
            image = list(numbers)[both[0]]
            own = " (a query is never its own answer)" if image == name else ""
            raise UserError(f"{where}, query {name}: {image} is of two kinds{own}; leave it in one")
    return Query(name, row.box, kinds)


def _rows_of_json(file: Path) -> tuple[list[_Row], list[str] | None]:
    """The queries, and the database where it is listed."""
    content, where = _read_json(file), printable(file)
    if (
        not isinstance(content, dict)
        or not isinstance(content.get("queries"), list)
        or not content["queries"]
    ):
        raise UserError(f"{where} needs an entry queries, a list of objects with image and positives")
    rows = []
    for number, entry in enumerate(content["queries"]):
        if not isinstance(entry, dict) or not isinstance(entry.get("image"), str):
            raise UserError(f"{where}: query {number} names no image")
        unknown = sorted(entry.keys() - {"image", "box", *LISTED})
        if unknown:
            known = "image, box, positives, easy, hard and junk"
            raise UserError(f"{where}, query {entry['image']}: there is no key {unknown[0]!r} ({known})")
        listed = {key: _paths(entry.get(key, []), where) for key in LISTED}
        box = read_box(entry["box"], f"{where}, query {entry['image']}") if "box" in entry else None
        rows.append(_Row(entry["image"], box, listed))
    database = content.get("database")
    return rows, None if database is None else _paths(database, where)


def _rows_of_csv(file: Path) -> tuple[list[_Row], None]:
    """The queries of a table with the columns query, image and kind, one row a pair; a query without an
    answer has a row with an empty image."""
    where = printable(file)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{where} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    table = csv.DictReader(text.splitlines())
    if set(table.fieldnames or ()) != {"query", "image", "kind"}:
        raise UserError(f"{where} needs the columns query, image and kind in its first line")
    queries: dict[str, _Row] = {}
    for line, row in enumerate(table, start=2):
        name, image, kind = ((row[key] or "").strip() for key in ("query", "image", "kind"))
        kind = {"positive": "positives"}.get(kind, kind)
        if not name or (image and kind not in LISTED):
            raise UserError(
                f"{where}, line {line}: kind is positive, easy, hard or junk, and query is not empty"
            )
        query = queries.setdefault(name, _Row(name))
        if image:
            query.listed[kind].append(image)
    if not queries:
        raise UserError(f"{where} has no queries below its first line")
    return list(queries.values()), None


def _paths(value: Any, where: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise UserError(f"{where}: images are given as a list of paths below --data.root, not as {value!r}")
    return value


def _numbers(value: Any, images: int, where: str) -> np.ndarray:
    """int64[n], rising: the numbers of images in a list or an array."""
    try:
        array = np.asarray(value)
    except ValueError:  # lists of different lengths
        array = np.zeros((1, 1))
    if not array.size:
        return np.zeros(0, np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iuf" or (array != np.round(array)).any():
        raise UserError(f"{where}: the numbers of images are needed, not {value!r}")
    if array.min() < 0 or array.max() >= images:
        raise UserError(f"{where}: image {int(array.max())} is not among the {images} of imlist")
    return np.unique(array.astype(np.int64))


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{printable(file)} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{printable(file)} is no JSON document: {error}") from error


def _read_pickle(file: Path) -> Any:
    try:
        return read_numpy_pickle(file)
    except OSError as error:
        raise UserError(f"{printable(file)} cannot be read: {error.strerror}") from error
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{printable(file)} cannot be read: {error}; ground truth is a pickle of lists, texts, numbers "
            "and arrays, in which nothing else is loaded or run: get it again from its authors"
        ) from error
    except Exception as error:  # unpickling damaged bytes raises errors of many types
        raise UserError(f"{printable(file)} is damaged: it cannot be read as a pickle ({error})") from error
