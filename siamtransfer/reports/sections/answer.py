"""The first screen: which backbone is best for what, which cannot be told apart, what beats the baselines."""

from __future__ import annotations

from typing import Any

from siamtransfer.reports.section import Section
from siamtransfer.reports.sources import Sources
from siamtransfer.reports.standings import Leader, Standings
from siamtransfer.reports.verdicts import Verdict, lead_of, verdicts_of
from siamtransfer.reports.wording import counted, interval_text, listed, number_text


def answer_section(sources: Sources) -> Section | None:
    """The answer in words, and the top of each column; None where there is no record."""
    if not sources.measurements:
        return None
    standings = Standings(sources)
    nothing = [("No number of these records says how good a backbone is.", False)]
    context = {
        "lead": lead_of(standings) if standings.columns else nothing,
        "verdicts": [*(verdicts_of(standings) if standings.columns else ()), *_gaps(sources)],
        "rows": [_row(sources, standings, standings.leader(column)) for column in standings.columns],
        "several": len(standings.contenders) > 1,
        "compared": len(sources.board.backbones) > 1,
        "alpha": f"{100 * sources.options.alpha:g} %",
    }
    return Section("answer", "The answer", "sections/answer.html", context)


def _gaps(sources: Sources) -> list[Verdict]:
    """What was not measured, what a suite left out, and what failed."""
    found, missing = [], len(sources.board.missing())
    if missing:
        text = f"{counted(missing, 'number')}; how to measure what is missing is below the table."
        found.append(Verdict("○", "warn", "Not measured", text))
    if sources.left_out:
        text = f"{counted(len(sources.left_out), 'measurement')} of the suite; why is below the table."
        found.append(Verdict("○", "warn", "Left out", text))
    if sources.failed:
        text = f"{counted(len(sources.failed), 'measurement')}; the reasons are below the table."
        found.append(Verdict("!", "bad", "Failed", text))
    return found


def _row(sources: Sources, standings: Standings, leader: Leader) -> dict[str, Any]:
    """The row of a column in the table of leaders."""
    column, best = leader.column, leader.best
    cell = standings.cell(best.backbone, column)
    assert cell is not None
    guess = standings.guesses[column]
    return {
        "name": standings.names[column].short,
        "detail": standings.names[column].detail,
        "best": best.backbone.label,
        "value": number_text(cell.value, column.unit),
        "unit": column.unit,
        "interval": interval_text(cell.low, cell.high, column.unit),
        "m": sources.place_of(cell.measurement),
        "metric": column.metric,
        "tied": listed([place.backbone.label for place in leader.tied]) if leader.tied else "",
        "untested": listed([place.backbone.label for place in leader.untested]) if leader.untested else "",
        "baseline": _best_baseline(standings, leader),
        "guess": "" if guess is None else number_text(guess),
    }


def _best_baseline(standings: Standings, leader: Leader) -> dict[str, str] | None:
    """The best baseline of a column, measured by itself or recorded with the best backbone."""
    column = leader.column
    found = {
        place.backbone.label: place.value for place in standings.places(column, standings.baselines)
    } or standings.recorded(leader.best.backbone, column)
    if not found:
        return None
    label = (max if column.higher_is_better else min)(found, key=lambda one: found[one])
    return {"label": label, "value": number_text(found[label], column.unit)}
