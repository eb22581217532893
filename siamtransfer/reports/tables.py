"""The table of backbones x tasks as Markdown, LaTeX and CSV, and all numbers as CSV.

Markdown and LaTeX are for papers: percentages with one digit, the best group in bold. CSV is for programs: a
number a row, unrounded, with its interval, rank, groups and where it comes from.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Sequence

from siamtransfer.leaderboard import BackboneId, Column
from siamtransfer.records.likeness import protocol_key
from siamtransfer.records.meanings import meaning_of
from siamtransfer.records.metric_intervals import interval_of
from siamtransfer.reports.sources import Sources
from siamtransfer.reports.standings import Standings
from siamtransfer.reports.wording import number_text
from siamtransfer.utils.text import printable

HEAD = (
    *("backbone", "task", "column", "metric", "value", "ci95_low", "ci95_high", "unit", "rank", "groups"),
    *("weights_digest", "protocol_key", "record"),
)
NUMBERS_HEAD = (
    *("backbone", "task", "metric", "value", "ci95_low", "ci95_high", "unit"),
    *("weights_digest", "protocol_key", "record"),
)
_ENDS = ("ci95_low", "ci95_high", "ci95", "images_low", "images_high")
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", "·": r"$\cdot$", "–": "--",
}  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""Beginnings of a text that spreadsheets take for a formula."""


def table_files(sources: Sources) -> dict[str, str]:
    """The tables by the names of their files: scores.md, scores.tex, scores.csv and numbers.csv."""
    standings = Standings(sources)
    return {
        "scores.md": as_markdown(standings),
        "scores.tex": as_latex(standings),
        "scores.csv": scores_csv(sources),
        "numbers.csv": numbers_csv(sources),
    }


def as_markdown(standings: Standings) -> str:
    """A table of GitHub's Markdown; letters of groups are superscripts."""

    def number(text: str, groups: str, best: bool) -> str:
        shown = f"**{text}**" if best else text
        return f"{shown}<sup>{groups}</sup>" if groups else shown

    head = ["Backbone", *(_heading(standings, column) for column in standings.board.columns)]
    rows = [[markdown_text(row[0]), *row[1:]] for row in _rows(standings, number)]
    lines = [[markdown_text(cell) for cell in head], ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def as_latex(standings: Standings) -> str:
    """A tabular with booktabs' rules; a group is a superscript."""

    def number(text: str, groups: str, best: bool) -> str:
        shown = latex_text(text)
        shown = rf"\textbf{{{shown}}}" if best else shown
        return rf"{shown}\textsuperscript{{{groups}}}" if groups else shown

    columns = standings.board.columns
    head = " & ".join(["Backbone", *(latex_text(_heading(standings, column)) for column in columns)])
    rows = [" & ".join([latex_text(row[0]), *row[1:]]) for row in _rows(standings, number)]
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            rf"\begin{{tabular}}{{l{'r' * len(columns)}}}",
            r"\toprule",
            rf"{head} \\",
            r"\midrule",
            *(rf"{row} \\" for row in rows),
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def scores_csv(sources: Sources) -> str:
    """All cells of the board, a row each, as RFC 4180 has it; texts that begin like a formula get an
    apostrophe before them."""
    places = {
        (column, place.backbone): place
        for column, ordered in sources.ranking.columns.items()
        for place in ordered
    }
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(HEAD)
    for (one, column), cell in sources.board.cells.items():
        place = places.get((column, one))
        texts = [one.label, column.task, column.title, column.metric]
        numbers = [cell.value, cell.low, cell.high]
        rank = [place.rank, place.groups] if place is not None else ["", ""]
        source = [one.digest, column.protocol_key, printable(cell.measurement.path)]
        writer.writerow(
            [
                *map(csv_text, texts),
                *("" if value is None else repr(float(value)) for value in numbers),
                csv_text(column.unit),
                *rank,
                *map(csv_text, source),
            ]
        )
    return out.getvalue()


def numbers_csv(sources: Sources) -> str:
    """All numbers of all records, a row each, without the ends of intervals, which stand beside theirs.
    Equal keys may stand side by side; those of numbers on the board are the keys of their columns."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(NUMBERS_HEAD)
    columns = {
        (cell.measurement, column.metric): column.protocol_key
        for (_, column), cell in sources.every.cells.items()
    }
    for measurement in sources.measurements:
        of_record = protocol_key(measurement.record)
        for name, value in measurement.metrics.items():
            if name.rpartition("/")[2] in _ENDS or not isinstance(value, int | float):
                continue
            interval, meaning = interval_of(name, measurement.metrics), meaning_of(name)
            ends = ("", "") if interval is None else (repr(interval.low), repr(interval.high))
            texts = [measurement.backbone.label, measurement.task, name]
            key = columns.get((measurement, name), of_record)
            source = [measurement.backbone.digest, key, printable(measurement.path)]
            unit = meaning.unit if meaning else ""
            writer.writerow([*map(csv_text, texts), repr(float(value)), *ends, unit, *map(csv_text, source)])
    return out.getvalue()


def markdown_text(text: str) -> str:
    """A text in a cell of a Markdown table: nothing in it is markup, a column's end or a new line."""
    return re.sub(r"([\\`*_{}\[\]<>|#~])", r"\\\1", " ".join(text.split()))


def latex_text(text: str) -> str:
    """A text with LaTeX's special characters escaped, in one line."""
    return "".join(_LATEX.get(character, character) for character in " ".join(text.split()))


def csv_text(text: str) -> str:
    """A text that a spreadsheet shows as it is and never computes."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _heading(standings: Standings, column: Column) -> str:
    name = standings.names[column].short
    return f"{name} ({column.unit})" if column.unit else name


def _rows(standings: Standings, number: Callable[[str, str, bool], str]) -> Iterable[list[str]]:
    """A row for each backbone: its label and its numbers, of which `number` writes text, groups and whether
    it is among the best."""
    for one in [*standings.contenders, *standings.baselines]:
        yield [one.label, *_numbers(standings, one, number)]


def _numbers(standings: Standings, one: BackboneId, number: Callable[[str, str, bool], str]) -> Sequence[str]:
    texts = []
    for column in standings.board.columns:
        cell = standings.cell(one, column)
        if cell is None:
            texts.append("")
            continue
        ordered = standings.ranking.columns.get(column) or []
        mine = standings.places(column, [one])
        several = len(ordered) > 1 and bool(mine)
        groups = mine[0].groups if several else ""
        texts.append(number(number_text(cell.value, column.unit), groups, standings.is_top(one, column)))
    return texts
