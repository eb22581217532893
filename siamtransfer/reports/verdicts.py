"""The answer in sentences: who leads, who is best alone, who cannot be told apart, what beats baselines.

Only tasks in which two backbones were measured alike say who is better; a best one "alone" is better than
every other one there by a test.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from siamtransfer.leaderboard import BackboneId
from siamtransfer.reports.standings import RECORDED, Against, Leader, Standings
from siamtransfer.reports.wording import counted, listed

Piece = tuple[str, bool]
"""A part of a sentence, and whether it is emphasised."""
MOST_NAMES, MOST_TASKS = 4, 3


class Verdict(NamedTuple):
    """A statement: a sign whose kind (good, bad, warn or empty) is also its colour, what it is about, and the
    rest."""

    sign: str
    kind: str
    head: str
    text: str


def lead_of(standings: Standings) -> list[Piece]:
    """The first sentence of the page."""
    if len(standings.contenders) == 1:
        return _lead_of_one(standings)
    shared = _shared(standings)
    if not shared:
        apart = "No task was measured for two backbones in the same way."
        return [("No test compares the backbones." if _several(standings) else apart, False)]
    tops = {one: [leader for leader in shared if _is_top(one, leader)] for one in standings.contenders}
    most = max(map(len, tops.values()))
    first = [one for one, led in tops.items() if len(led) == most]
    where = _where(standings, shared, most)
    if len(first) == len(standings.contenders) and most == len(shared):
        end = (
            " cannot be told apart in any task." if len(shared) > 1 else f" cannot be told apart in {where}."
        )
        return [("No backbone stands out: ", False), *_names(first), (end, False)]
    if len(first) > 1:
        return [*_names(first), (f" share the lead: each is among the best in {where}.", False)]
    alone = sum(_is_alone(first[0], standings, leader) for leader in tops[first[0]])
    if alone == most:
        return [(first[0].label, True), (f" is the best in {where}.", False)]
    end = f", and alone at the top in {alone}" if alone else ""
    kind = "is the best or among the best" if alone else "is among the best"
    return [(first[0].label, True), (f" {kind} in {where}{end}.", False)]


def verdicts_of(standings: Standings) -> list[Verdict]:
    """The sentences below the first."""
    found = []
    if len(standings.contenders) > 1:
        found += [*_alone(standings), *_tied(standings), *_over_all(standings), *_untested(standings)]
    against = [one for backbone in standings.contenders for one in standings.against(backbone)]
    found += _beaten(against)
    for baseline in dict.fromkeys(one.baseline for one in against):
        found += _not_beaten(standings, [one for one in against if one.baseline == baseline])
    if not standings.only_baselines and not any(one.baseline in RECORDED for one in against):
        text = "neither raw pixels nor an untrained network says what a score is worth."
        found.append(Verdict("?", "warn", "No baseline was measured", text))
    return found


def _lead_of_one(standings: Standings) -> list[Piece]:
    """Of one backbone: which of the baselines it beats, the hardest first."""
    one = standings.contenders[0]
    found = standings.against(one)
    if not found:
        return [(one.label, True), (f" was measured in {counted(len(standings.columns), 'task')}.", False)]
    hardest = min(found, key=lambda against: len(against.columns["better"]))
    better, total = len(hardest.columns["better"]), sum(map(len, hardest.columns.values()))
    if better == total:
        beaten = listed([against.baseline for against in found])
        return [(one.label, True), (f" beats {beaten} in every task.", False)]
    if not better:
        return [(one.label, True), (f" does not beat {hardest.baseline} in any task.", False)]
    return [
        (one.label, True),
        (f" beats {hardest.baseline} in {better} of {counted(total, 'task')}.", False),
    ]


def _several(standings: Standings) -> list[Leader]:
    """The tops of the columns that several of the judged backbones have."""
    columns = [
        column for column in standings.columns if len(standings.places(column, standings.contenders)) > 1
    ]
    return [standings.leader(column) for column in columns]


def _shared(standings: Standings) -> list[Leader]:
    """Those in which a test compares the first with another judged one."""
    judged = set(standings.contenders)
    found = []
    for leader in _several(standings):
        others = {place.backbone for place in standings.places(leader.column, standings.contenders)[1:]}
        if others & judged - {place.backbone for place in leader.untested}:
            found.append(leader)
    return found


def _untested(standings: Standings) -> list[Verdict]:
    """The tasks whose numbers stand side by side and are compared by no test."""
    tested = {leader.column for leader in _shared(standings)}
    names = [
        standings.names[leader.column].short for leader in _several(standings) if leader.column not in tested
    ]
    text = f"{listed(names)}; the records keep no predictions of these numbers." if names else ""
    return [Verdict("○", "warn", "Not tested", text)] if names else []


def _where(standings: Standings, shared: Sequence[Leader], count: int) -> str:
    if len(shared) == 1:
        return standings.names[shared[0].column].short
    every = "both tasks" if len(shared) == 2 else f"all {len(shared)} tasks"
    return every if count == len(shared) else f"{count} of {len(shared)} tasks"


def _names(backbones: Sequence[BackboneId]) -> list[Piece]:
    """The names in a list of words, each emphasised."""
    shown, more = backbones[:MOST_NAMES], len(backbones) - MOST_NAMES
    pieces: list[Piece] = []
    for place, one in enumerate(shown):
        last = place == len(shown) - 1 and more <= 0
        pieces += [(" and " if last else ", ", False)] if place else []
        pieces.append((one.label, True))
    return pieces + ([(f" and {more} more", False)] if more > 0 else [])


def _is_top(one: BackboneId, leader: Leader) -> bool:
    """Whether a backbone is the best of a column, or cannot be told from the best."""
    return leader.best.backbone == one or one in {place.backbone for place in leader.tied}


def _is_alone(one: BackboneId, standings: Standings, leader: Leader) -> bool:
    """Whether a backbone is the best of a column, and better than every other judged one by a test."""
    others = {place.backbone for place in (*leader.tied, *leader.untested)}
    return leader.best.backbone == one and not others.intersection(standings.contenders)


def _alone(standings: Standings) -> list[Verdict]:
    """Which backbone is best alone, and in which tasks."""
    shared, found = _shared(standings), []
    if shared and all(_is_alone(standings.contenders[0], standings, leader) for leader in shared):
        return []  # the first sentence says it
    for one in standings.contenders:
        names = [
            standings.names[leader.column].short for leader in shared if _is_alone(one, standings, leader)
        ]
        if names:
            found.append(Verdict("★", "good", "Best alone", f"{one.label} in {listed(names)}."))
    return found


def _tied(standings: Standings) -> list[Verdict]:
    """In which tasks the top is shared, and by whom."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for leader in _shared(standings):
        tied = [place.backbone.label for place in leader.tied if place.backbone in standings.contenders]
        if tied:
            names = groups.setdefault((leader.best.backbone.label, *sorted(tied)), [])
            names.append(standings.names[leader.column].short)
    unordered: dict[tuple[str, ...], list[str]] = {}
    for labels, tasks in groups.items():
        unordered.setdefault(tuple(sorted(labels)), []).extend(tasks)
    parts = [f"{listed(labels, 3)} in {listed(tasks, 3)}" for labels, tasks in unordered.items()]
    if not parts:
        return []
    more = f"; {len(parts) - MOST_TASKS} more groups elsewhere" if len(parts) > MOST_TASKS else ""
    return [Verdict("≈", "", "Not told apart at the top", f"{'; '.join(parts[:MOST_TASKS])}{more}.")]


def _over_all(standings: Standings) -> list[Verdict]:
    """What the first by its mean rank is told against each other: better, not told apart, or worse, since a
    mean rank also counts tasks in which two are not told apart."""
    if len(_shared(standings)) < 2:
        return []
    first = standings.contenders[0]
    beaten: list[str] = []
    alike: list[str] = []
    ahead: list[str] = []
    for pair in standings.ranking.overall_pairs:
        if first not in (pair.first, pair.second):
            continue
        other = pair.second if pair.first == first else pair.first
        if other in standings.contenders:
            group = alike if pair.better is None else beaten if pair.better == first else ahead
            group.append(other.label)
    parts = [f"{first.label} is better than {listed(beaten)}"] if beaten else []
    if alike:
        subject = "it" if beaten else first.label
        parts.append(f"{subject} is not told apart from {listed(alike)}")
    if ahead:
        verb = "is" if len(ahead) == 1 else "are"
        parts.append(f"{listed(ahead)} {verb} better than {first.label}, in spite of its mean rank")
    return [Verdict("●", "", "Over all tasks together", f"{'; '.join(parts)}.")] if parts else []


def _beaten(against: Sequence[Against]) -> list[Verdict]:
    """The baselines that every backbone beats in every task, in one sentence."""
    beaten = []
    for baseline in dict.fromkeys(one.baseline for one in against):
        own = [one for one in against if one.baseline == baseline]
        failed = [one for one in own if one.columns["alike"] or one.columns["worse"]]
        if not failed and all(one.columns["better"] for one in own):
            beaten.append(baseline)
    if not beaten:
        return []
    backbones = {one.backbone: one.backbone.label for one in against}
    who = next(iter(backbones.values())) if len(backbones) == 1 else "every backbone"
    untested = any(one.columns["untested"] for one in against if one.baseline in beaten)
    where = "every task that has predictions" if untested else "every task"
    return [Verdict("✓", "good", f"Better than {listed(beaten)}", f"{who}, in {where}.")]


def _not_beaten(standings: Standings, against: Sequence[Against]) -> list[Verdict]:
    """The backbones that fail to beat one baseline, and where."""
    parts = []
    for one in against:
        failed = [standings.names[column].short for column in (*one.columns["worse"], *one.columns["alike"])]
        if failed:
            parts.append(f"{one.backbone.label} in {listed(failed, MOST_TASKS)}")
    if not parts:
        return []
    more = f"; and {len(parts) - MOST_NAMES} more backbones" if len(parts) > MOST_NAMES else ""
    text = f"{'; '.join(parts[:MOST_NAMES])}{more}."
    return [Verdict("✗", "bad", f"Not better than {against[0].baseline}", text)]
