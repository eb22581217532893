"""The first screen: which backbone is best for what, which cannot be told apart, what beats the baselines."""

from __future__ import annotations

from typing import Any, NamedTuple

from siamtransfer.leaderboard import BackboneId, Column
from siamtransfer.reports.section import Section
from siamtransfer.reports.sources import Sources
from siamtransfer.reports.standings import Against, Leader, Standings
from siamtransfer.reports.wording import counted, interval_text, listed, number_text


class Verdict(NamedTuple):
    """A sentence with a sign before it, whose kind (good, bad, warn or empty) is also its colour."""

    sign: str
    kind: str
    text: str


def answer_section(sources: Sources) -> Section | None:
    """The answer in words, and the top of each column; None where nothing was measured."""
    standings = Standings(sources)
    if not standings.columns:
        return None
    leaders = [standings.leader(column) for column in standings.columns]
    missing = sources.board.missing()
    context = {
        "lead": _lead(standings, leaders),
        "verdicts": [*_verdicts(standings, leaders), *_gaps(sources, len(missing))],
        "rows": [_row(sources, standings, leader) for leader in leaders],
        "several": len(standings.contenders) > 1,
        "alpha": f"{100 * sources.options.alpha:g} %",
    }
    return Section("answer", "The answer", "sections/answer.html", context)


def _lead(standings: Standings, leaders: list[Leader]) -> list[tuple[str, bool]]:
    """The first sentence, in pieces of which some are emphasised."""
    contenders, tasks = standings.contenders, len(leaders)
    if len(contenders) == 1:
        return _lead_of_one(standings)
    tops = {one: _tops(one, leaders) for one in contenders}
    alone = {one: sum(_is_alone(one, standings, leader) for leader in leaders) for one in contenders}
    most = max(len(columns) for columns in tops.values())
    first = [one for one in contenders if len(tops[one]) == most]
    if len(first) == len(contenders):
        return [
            ("No backbone stands out: ", False),
            *_names(first),
            (" cannot be told apart in any task.", False),
        ]
    if len(first) > 1:
        where = "every task" if most == tasks else f"{most} of {counted(tasks, 'task')}"
        return [*_names(first), (f" share the lead: each is among the best in {where}.", False)]
    winner = first[0]
    where = "every task" if most == tasks else f"{most} of {counted(tasks, 'task')}"
    if tasks == 1:
        where = standings.columns[0].title
    end = f", alone at the top in {alone[winner]}" if tasks > 1 and alone[winner] != most else ""
    kind = "is the best" if alone[winner] == most else "is the best or among the best"
    return [(winner.label, True), (f" {kind} in {where}{end}.", False)]


def _lead_of_one(standings: Standings) -> list[tuple[str, bool]]:
    one = standings.contenders[0]
    found = standings.against(one)
    if not found:
        return [(one.label, True), (f" was measured in {counted(len(standings.columns), 'task')}.", False)]
    hardest = min(found, key=lambda against: len(against.columns["better"]))
    better, total = len(hardest.columns["better"]), sum(map(len, hardest.columns.values()))
    beaten = [against.baseline for against in found]
    if better == total and len(found) > 1:
        return [(one.label, True), (f" beats {listed(beaten)} wherever they were measured.", False)]
    where = f"in {better} of {counted(total, 'task')}" if total > 1 else ("" if better else "nowhere")
    verb = " beats " if better else " does not beat "
    return [(one.label, True), (f"{verb}{hardest.baseline} {where if better else ''}".rstrip() + ".", False)]


def _names(backbones: list[BackboneId]) -> list[tuple[str, bool]]:
    """The names in a list of words, each emphasised."""
    shown, more = backbones[:4], len(backbones) - 4
    parts: list[tuple[str, bool]] = []
    for place, one in enumerate(shown):
        last = place == len(shown) - 1 and more <= 0
        parts += [(" and " if last else ", ", False)] if place else []
        parts.append((one.label, True))
    return parts + ([(f" and {more} more", False)] if more > 0 else [])


def _tops(one: BackboneId, leaders: list[Leader]) -> list[Column]:
    """The columns in which a backbone is the best, or cannot be told from the best."""
    return [
        leader.column
        for leader in leaders
        if leader.best.backbone == one or one in {place.backbone for place in leader.tied}
    ]


def _is_alone(one: BackboneId, standings: Standings, leader: Leader) -> bool:
    """Whether a backbone is the best of a column, and better than every other contender by a test."""
    others = [place for place in (*leader.tied, *leader.untested) if place.backbone in standings.contenders]
    return leader.best.backbone == one and not others


def _verdicts(standings: Standings, leaders: list[Leader]) -> list[Verdict]:
    """The sentences below the lead."""
    found = []
    if len(standings.contenders) > 1:
        found += _specialists(standings, leaders)
    against = [one for backbone in standings.contenders for one in standings.against(backbone)]
    for baseline in dict.fromkeys(one.baseline for one in against):
        found.append(_against_baseline([one for one in against if one.baseline == baseline]))
    if not standings.baselines:
        text = (
            "Neither raw pixels nor an untrained network were measured: what a score is worth is not known."
        )
        found.append(Verdict("?", "warn", text))
    return found


def _specialists(standings: Standings, leaders: list[Leader]) -> list[Verdict]:
    """Which backbone is alone at the top of which tasks, and how many tasks have no single best."""
    found = []
    for one in standings.contenders:
        alone = [leader.column.title for leader in leaders if _is_alone(one, standings, leader)]
        if alone:
            found.append(Verdict("★", "good", f"Best alone: {one.label} in {listed(alone)}."))
    shared = []
    for leader in leaders:
        others = [place for place in leader.tied if place.backbone in standings.contenders]
        if others:
            names = listed([leader.best.backbone.label, *(place.backbone.label for place in others)], 3)
            shared.append(f"{names} in {leader.column.title}")
    if shared:
        found.append(
            Verdict("≈", "", f"Cannot be told apart at the top: {'; '.join(shared[:3])}{_more(shared)}.")
        )
    return found


def _more(items: list[str]) -> str:
    return f"; and in {counted(len(items) - 3, 'more task')}" if len(items) > 3 else ""


def _against_baseline(all_against: list[Against]) -> Verdict:
    """All backbones against one baseline, in a sentence that names those that fail."""
    baseline = all_against[0].baseline
    short = [one for one in all_against if one.columns["alike"] or one.columns["worse"]]
    if not short:
        who = all_against[0].backbone.label if len(all_against) == 1 else "every backbone"
        return Verdict("✓", "good", f"Better than {baseline}: {who}, in every task.")
    parts = []
    for one in short:
        failed = [column.title for column in (*one.columns["worse"], *one.columns["alike"])]
        parts.append(f"{one.backbone.label} in {listed(failed, 3)}")
    return Verdict(
        "✗", "bad", f"Not better than {baseline}: {'; '.join(parts[:4])}{'; and others' * (len(parts) > 4)}."
    )


def _gaps(sources: Sources, missing: int) -> list[Verdict]:
    """What was not measured, and what failed."""
    found = []
    if missing:
        verb = "is" if missing == 1 else "are"
        text = f"{counted(missing, 'number')} of the table {verb} missing; “Missing” has the commands."
        found.append(Verdict("…", "warn", text))
    if sources.failed:
        text = f"{counted(len(sources.failed), 'measurement')} failed; “Missing” has the reasons."
        found.append(Verdict("!", "bad", text))
    return found


def _row(sources: Sources, standings: Standings, leader: Leader) -> dict[str, Any]:
    """The row of a column in the table of leaders."""
    column, best = leader.column, leader.best
    cell = standings.cell(best.backbone, column)
    assert cell is not None
    others = [place.backbone.label for place in leader.tied]
    return {
        "title": column.title,
        "best": best.backbone.label,
        "value": number_text(cell.value, column.unit),
        "unit": column.unit,
        "interval": interval_text(cell.low, cell.high, column.unit),
        "m": sources.place_of(cell.measurement),
        "metric": column.metric,
        "tied": listed(others) if others else "",
        "untested": listed([place.backbone.label for place in leader.untested]) if leader.untested else "",
        "guess": number_text(standings.guesses[column]) if standings.guesses[column] is not None else "",
    }
