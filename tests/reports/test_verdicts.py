"""The sentences of the page against boards whose answer is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from support.boards import answers, write, write_knn

from siamtransfer.leaderboard.text import table_lines
from siamtransfer.records.predictions import Predictions
from siamtransfer.reports.options import ReportOptions
from siamtransfer.reports.sources import Sources, gather
from siamtransfer.reports.standings import Standings
from siamtransfer.reports.verdicts import lead_of, verdicts_of

PIXELS = {"backbone": "pixels", "weights_digest": None, "architecture": None}
SAMPLES = 400


def write_linear(path: Path, name: str, right: np.ndarray, **changes: object) -> None:
    labels = np.arange(len(right)) % 5
    kept = Predictions(labels, {"linear": np.where(right, labels, labels + 1)})
    top1 = 100 * float(right.mean())
    ends = {"linear/top1/ci95_low": top1 - 2, "linear/top1/ci95_high": top1 + 2}
    write(path, "linear", {"linear/top1": top1, **ends}, kept, name, **changes)


def standings_of(folder: Path) -> Standings:
    sources: Sources = gather([folder], ReportOptions())
    return Standings(sources)


def lead(folder: Path) -> str:
    return "".join(text for text, _ in lead_of(standings_of(folder)))


def statements(folder: Path) -> dict[str, str]:
    return {verdict.head: verdict.text for verdict in verdicts_of(standings_of(folder))}


def test_a_clear_winner_leads_and_is_better_than_the_others(tmp_path: Path) -> None:
    right = answers(0, 0.9, 0.5, 0.3)
    for name, own in zip(("good", "fair", "poor"), right, strict=True):
        write_knn(tmp_path / f"{name}-knn.json", name, own)
        write_linear(tmp_path / f"{name}-linear.json", name, own)
    assert lead(tmp_path) == "good is the best in both tasks."
    said = statements(tmp_path)
    assert said["Over all tasks together"] == "good is better than fair and poor."
    assert said["Better than a guess"] == "every backbone, in every task."
    assert "Best alone" not in said  # the lead has said it
    assert "No baseline was measured" in said


def test_equal_backbones_are_not_told_apart(tmp_path: Path) -> None:
    for name, own in zip(("a", "b"), answers(1, 0.6, 0.6), strict=True):
        write_knn(tmp_path / f"{name}.json", name, own)
    assert lead(tmp_path).startswith("No backbone stands out: ")
    assert lead(tmp_path).endswith(" cannot be told apart in kNN.")
    assert statements(tmp_path)["Not told apart at the top"] == "a and b in kNN."


def test_each_is_best_for_what_it_is_good_at(tmp_path: Path) -> None:
    high, low = answers(2, 0.9, 0.4)
    for name, knn, linear in (("a", high, low), ("b", low, high)):
        write_knn(tmp_path / f"{name}-knn.json", name, knn)
        write_linear(tmp_path / f"{name}-linear.json", name, linear)
    assert lead(tmp_path) == "a and b share the lead: each is among the best in 1 of 2 tasks."
    best = [verdict.text for verdict in verdicts_of(standings_of(tmp_path)) if verdict.head == "Best alone"]
    assert sorted(best) == ["a in kNN.", "b in Linear probe."]


def test_who_is_better_in_spite_of_a_worse_mean_rank_is_said_to_be(tmp_path: Path) -> None:
    """`often` is ahead in two of three columns, by two samples that tell nothing."""
    much, even, little = answers(6, 0.9, 0.5, 0.3)
    more = even.copy()
    more[np.flatnonzero(~even)[:2]] = True
    for name, knn, linear in (("often", more, little), ("clear", even, much)):
        write_knn(tmp_path / f"{name}-knn.json", name, knn)
        write_knn(tmp_path / f"{name}-layer3.json", name, knn, layers="layer3")
        write_linear(tmp_path / f"{name}-linear.json", name, linear)
    sources = gather([tmp_path], ReportOptions())
    ranks = {place.backbone.label: place.mean_rank for place in sources.ranking.overall}
    assert ranks["often"] < ranks["clear"]
    said = statements(tmp_path)["Over all tasks together"]
    assert said == "clear is better than often, in spite of its mean rank."
    assert table_lines(sources.board, sources.ranking)[-1] == (
        "clear is told to be better than often, in spite of the mean ranks: clearly better in 1 of 3 "
        "columns, worse in none"
    )


def test_a_backbone_that_raw_pixels_beat_is_said_to(tmp_path: Path) -> None:
    good, bad, pixels = answers(3, 0.8, 0.3, 0.5)
    write_knn(tmp_path / "good.json", "good", good)
    write_knn(tmp_path / "bad.json", "bad", bad)
    write_knn(tmp_path / "pixels.json", "pixels", pixels, **PIXELS)
    standings = standings_of(tmp_path)
    assert [one.label for one in standings.contenders] == ["good", "bad"]
    assert [one.label for one in standings.baselines] == ["pixels"]
    assert lead(tmp_path) == "good is the best in kNN."
    assert statements(tmp_path)["Not better than raw pixels"] == "bad in kNN."


def test_one_backbone_is_told_against_its_baselines(tmp_path: Path) -> None:
    own, pixels = answers(4, 0.8, 0.3)
    write_knn(tmp_path / "own.json", "own", own)
    assert lead(tmp_path) == "own beats a guess in every task."
    write_knn(tmp_path / "pixels.json", "pixels", pixels, **PIXELS)
    assert lead(tmp_path) == "own beats raw pixels and a guess in every task."


def test_a_guess_is_the_most_frequent_class(tmp_path: Path) -> None:
    labels = np.r_[np.zeros(300, int), np.arange(100) % 4 + 1]
    write_knn(tmp_path / "a.json", "a", np.arange(SAMPLES) < 200, labels=labels)
    standings = standings_of(tmp_path)
    assert list(standings.guesses.values()) == [75.0]
    assert lead(tmp_path) == "a does not beat a guess in any task."


def test_without_predictions_nobody_is_called_better(tmp_path: Path) -> None:
    for name, own in zip(("a", "b"), answers(5, 0.9, 0.1), strict=True):
        write_knn(tmp_path / f"{name}.json", name, own, without_predictions=True)
    assert lead(tmp_path) == "No test compares the backbones."
    assert statements(tmp_path)["Not tested"].startswith("kNN; ")
    standings = standings_of(tmp_path)
    (column,) = standings.columns
    assert not any(standings.is_top(one, column) for one in standings.contenders)
    leader = standings.leader(column)
    assert leader.tied == [] and [place.backbone.label for place in leader.untested] == ["b"]


def test_backbones_measured_in_unlike_ways_are_not_compared(tmp_path: Path) -> None:
    for name, size, own in zip(("a", "b"), (224, 384), answers(6, 0.9, 0.1), strict=True):
        write_knn(tmp_path / f"{name}.json", name, own, transform={"crop": size})
    assert lead(tmp_path) == "No task was measured for two backbones in the same way."
    assert [name.short for name in standings_of(tmp_path).names.values()] == ["kNN (1)", "kNN (2)"]


def test_baselines_that_a_record_holds_are_baselines(tmp_path: Path) -> None:
    right = np.arange(SAMPLES) % 10 < 6
    labels = np.arange(SAMPLES) % 5
    name = "knn/k=20/T=0.07/top1"
    ends = {"knn/k=20/T=0.07/ci95_low": 58.0, "knn/k=20/T=0.07/ci95_high": 62.0}
    recorded = {f"baseline/pixels/{name}": 57.5, f"baseline/untrained/{name}": 57.0}
    kept = Predictions(labels, {"k=20/T=0.07": np.where(right, labels, labels + 1)})
    write(tmp_path / "a.json", "knn", {name: 60.0, **ends, **recorded}, kept, "a")
    said = statements(tmp_path)
    assert "No baseline was measured" not in said
    assert said["Not better than raw pixels"] == "a in kNN."  # 2.5 is less than sqrt(2) * 2 = 2.83
    assert said["Better than untrained networks and a guess"] == "a, in every task."


def test_a_baseline_that_no_test_compares_is_not_called_beaten(tmp_path: Path) -> None:
    own, pixels = answers(4, 0.8, 0.3)
    write_knn(tmp_path / "own.json", "own", own)
    write_knn(tmp_path / "pixels.json", "pixels", pixels, without_predictions=True, **PIXELS)
    assert not any("raw pixels" in head for head in statements(tmp_path))
