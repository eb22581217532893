"""A report: what the given files and folders hold becomes one page, with its tables and cards where asked."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from siamtransfer.leaderboard.index import NAME as INDEX
from siamtransfer.leaderboard.index import update_index
from siamtransfer.records.record import record
from siamtransfer.reports.cards import card_file, model_card
from siamtransfer.reports.details import details_of
from siamtransfer.reports.options import ReportOptions
from siamtransfer.reports.page import MARK, render
from siamtransfer.reports.section import Section
from siamtransfer.reports.sections import SECTIONS
from siamtransfer.reports.sources import Sources, gather
from siamtransfer.reports.standings import Standings
from siamtransfer.reports.tables import table_files
from siamtransfer.reports.wording import counted
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import atomic_write, refuse_outputs
from siamtransfer.utils.log import say
from siamtransfer.utils.text import printable

_HEAD = 8192  # bytes of a page that hold its mark


def write_report(
    paths: Sequence[str | Path], out: str | Path, options: ReportOptions | None = None
) -> dict[str, Any]:
    """Writes the page of records, runs, suites and folders of them to `out`, one file of HTML.

    Returns:
        The record: how many backbones, columns and numbers the page shows, its size and the seconds.

    Raises:
        UserError: a path is absent, a file that is named is damaged, nothing was measured, or `out` is no
            place for a page. Nothing is written then.
    """
    options = options or ReportOptions()
    options.check()
    out = Path(out)
    refuse_page(out)
    _refuse_further(options)
    begin = time.perf_counter()
    sources = gather(paths, options)
    cards = _cards(sources, options)
    sections = sections_of(sources)
    text = render(title_of(sources), sections, details_of(sources), facts_of(sources))
    content = text.encode("utf-8", "backslashreplace")
    with atomic_write(out) as file:
        file.write(content)
    if options.index:
        _keep_indices(paths)
    for path, card in cards.items():
        _write(path, card)
    if options.tables is not None:
        for name, table in table_files(sources).items():
            _write(Path(options.tables) / name, table)
    seconds = time.perf_counter() - begin
    say(f"wrote {printable(out)}: {facts_text(sources)}; {len(content) / 1e6:.1f} MB in {seconds:.1f} s")
    metrics = {
        "report/backbones": float(len(sources.board.backbones)),
        "report/columns": float(len(sources.board.columns)),
        "report/records": float(len({measurement.path for measurement in sources.measurements})),
        "report/missing": float(len(sources.board.missing())),
        "report/failed": float(len(sources.failed)),
        "report/left_out": float(len(sources.left_out)),
        "report/bytes": float(len(content)),
        "report/seconds": seconds,
    }
    protocol = {"alpha": options.alpha, "seed": options.seed, "sections": [one.id for one in sections]}
    return record("report", metrics, protocol, sources=[str(path) for path in paths], out=str(out))


def refuse_page(out: Path) -> None:
    """Raises UserError where a page must not be written: another ending, a folder, or a file that is no
    report."""
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(
            f"{printable(out)} must end in .html: name the page last, as in report runs page.html"
        )
    refuse_outputs("", [out], force=True)
    if out.exists() and MARK.encode() not in _head_of(out):
        raise UserError(f"{printable(out)} exists and is no report of siamtransfer: choose another name")


def _refuse_further(options: ReportOptions) -> None:
    """Raises UserError where the folder of the tables is a file, or the card has a place of another kind."""
    for option, place in (("--tables", options.tables), ("--card", options.card)):
        if place is None:
            continue
        path, is_card = Path(place), option == "--card" and place.lower().endswith(".md")
        if is_card and path.is_dir():
            raise UserError(
                f"{option} {printable(path)} is a folder: name a file, or a folder of another name"
            )
        if not is_card and path.exists() and not path.is_dir():
            raise UserError(f"{option} {printable(path)} is a file, and a folder is needed: name another")


def sections_of(sources: Sources) -> list[Section]:
    """The sections that have something to show, in their order."""
    made = (section(sources) for section in SECTIONS)
    return [section for section in made if section is not None]


def title_of(sources: Sources) -> str:
    """The heading: what the user says, or what the page shows."""
    if sources.options.title:
        return sources.options.title
    contenders = Standings(sources).contenders if sources.board.backbones else []
    if len(contenders) == 1:
        return f"{contenders[0].label}: what it is good for"
    if len(contenders) == 2:
        return f"{contenders[0].label} and {contenders[1].label}"
    if contenders:
        return f"{len(contenders)} backbones compared"
    return sources.runs[0].name if sources.runs else "Images"


def facts_of(sources: Sources) -> list[str]:
    """Short texts below the title."""
    records = len({measurement.path for measurement in sources.measurements})
    times = sorted(measurement.time for measurement in sources.measurements if measurement.time)
    counts = [
        (len(sources.board.backbones), "backbone"),
        (len(sources.board.columns), "task"),
        (records, "record"),
        (len(sources.runs), "run"),
        (len(sources.maps), "map"),
    ]
    facts = [counted(count, noun) for count, noun in counts if count]
    return [*facts, f"measured until {times[-1][:10]}"] if times else facts


def facts_text(sources: Sources) -> str:
    """The same in a message."""
    return ", ".join(facts_of(sources))


def _cards(sources: Sources, options: ReportOptions) -> dict[Path, str]:
    """The model cards that are asked for, by their files: one file for one backbone, a folder for several."""
    if options.card is None:
        return {}
    contenders = Standings(sources).contenders
    place = Path(options.card)
    if place.suffix.lower() != ".md":
        return {place / card_file(one, contenders): model_card(sources, one) for one in contenders}
    if len(contenders) != 1:
        raise UserError(
            f"--card {printable(place)} is one file, and there are {len(contenders)} backbones: name a folder"
        )
    return {place: model_card(sources, contenders[0])}


def _keep_indices(paths: Sequence[str | Path]) -> None:
    """Brings the index of every given folder that holds records up to date; says where that cannot be."""
    for folder in (Path(path) for path in paths if Path(path).is_dir()):
        try:
            entries = update_index(folder)
        except UserError as error:
            say(f"note: {printable(folder)} keeps no index: {error}")
            continue
        say(f"{printable(folder / INDEX)}: {counted(len(entries), 'number')} of the records in this folder")


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode("utf-8", "backslashreplace"))


def _head_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD)
