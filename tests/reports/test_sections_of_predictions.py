"""Numbers of the charts against direct computations from the predictions, and against other libraries."""

from __future__ import annotations

import base64
import html
import math
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
import sklearn.metrics
from support.boards import sample_values, write, write_knn
from support.report_records import (
    COST,
    HOSTILE,
    make_labels,
    make_predictions,
    write_board,
    write_classification,
    write_invariance,
    write_robustness,
    write_run,
)

from siamtransfer.metering.cost import Cost
from siamtransfer.metrics.intervals import wilson_interval
from siamtransfer.records.predictions import Predictions
from siamtransfer.reports.answers import collect_answers
from siamtransfer.reports.options import ReportOptions
from siamtransfer.reports.section import Section
from siamtransfer.reports.sections.calibration import calibration_section
from siamtransfer.reports.sections.classes import classes_section
from siamtransfer.reports.sections.confusions import confused_pairs, confusions_section
from siamtransfer.reports.sections.cost import cost_section
from siamtransfer.reports.sections.every import every_section
from siamtransfer.reports.sections.invariance import invariance_section
from siamtransfer.reports.sections.scores import scores_section
from siamtransfer.reports.sections.shifted import shifted_section
from siamtransfer.reports.sources import Sources, gather
from siamtransfer.utils.files import write_checked_text
from siamtransfer.utils.strict_json import to_json

SECTIONS = (
    scores_section,
    classes_section,
    confusions_section,
    calibration_section,
    shifted_section,
    invariance_section,
    cost_section,
)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    """Three backbones, kNN, a probe and robustness of each."""
    folder = tmp_path_factory.mktemp("board")
    write_board(folder, samples=300, classes=6)
    for number in range(3):
        write_robustness(
            folder / f"backbone-{number}/robustness.json", f"backbone-{number}", 90 - 10 * number
        )
        write_invariance(
            folder / f"backbone-{number}/invariance.json",
            f"backbone-{number}",
            80 - 10 * number,
            0.4 + number / 10,
        )
    return gather([folder], ReportOptions())


def made(section: Section | None) -> Section:
    """The section, which must be there."""
    assert section is not None
    return section


def test_every_figure_is_valid_and_every_view_says_what_it_shows(sources: Sources) -> None:
    for section in (made(function(sources)) for function in SECTIONS):
        charts = section.context["charts"] if "charts" in section.context else [section.context["chart"]]
        assert charts
        for chart in charts:
            for view in chart.views:
                go.Figure(view.figure)
                assert all(len(row) == len(view.table.head) for row in view.table.rows)
                assert view.summary or section.id == "classes"
            assert "<" not in str(chart.as_json())


def test_matrices_of_confusion_are_those_of_scikit_learn(sources: Sources) -> None:
    answers = collect_answers(sources)
    charts = made(confusions_section(sources)).context["charts"]
    assert len(answers) == len(charts) == 2  # the head of robustness on clean images is linear once more
    for of_column, chart in zip(answers, charts, strict=True):
        for answer, view in zip(of_column.given, chart.views, strict=True):
            counts = sklearn.metrics.confusion_matrix(of_column.labels, answer.predicted)
            shares = sklearn.metrics.confusion_matrix(of_column.labels, answer.predicted, normalize="true")
            [trace] = view.figure["data"]
            np.testing.assert_array_equal(trace["customdata"], counts)
            np.testing.assert_allclose(np.array(trace["z"], float), 100 * shares, rtol=1e-3)


def test_confused_pairs_are_the_largest_counts_beside_the_diagonal() -> None:
    labels, predicted = np.array([7, 7, 7, 7, 2, 2, 5]), np.array([2, 2, 5, 7, 7, 2, 5])
    pairs = confused_pairs(labels, predicted)
    assert [(pair.true, pair.taken_for, pair.count, pair.of) for pair in pairs] == [
        (7, 2, 2, 4),
        (2, 7, 1, 2),
        (7, 5, 1, 4),
    ]
    assert pairs[0].share == 50
    assert confused_pairs(labels, labels) == []


def test_many_classes_are_drawn_as_pairs(tmp_path: Path) -> None:
    labels = make_labels(500, 100)
    predicted, _ = make_predictions(labels, 0.3, 0)
    write_classification(tmp_path / "a.json", "a", labels, predicted)
    [chart] = made(confusions_section(gather([tmp_path], ReportOptions()))).context["charts"]
    [view] = chart.views
    assert view.figure["data"][0]["type"] == "scatter"
    best = confused_pairs(labels, predicted)[0]
    assert view.table.rows[0][:4] == [f"class {best.true}", f"class {best.taken_for}", best.count, best.of]
    assert f"{int((labels == predicted).sum())} of 500 samples are right" in view.summary


def test_wilsons_interval_is_the_formula() -> None:
    count, of, z = 3, 40, 1.959963984540054
    share = count / of
    centre = (share + z**2 / (2 * of)) / (1 + z**2 / of)
    half = z / (1 + z**2 / of) * math.sqrt(share * (1 - share) / of + z**2 / (4 * of**2))
    assert wilson_interval(count, of) == pytest.approx((centre - half, centre + half))


def test_classes_hold_labels_and_a_bit_a_sample(sources: Sources) -> None:
    section = made(classes_section(sources))
    for column, answers in zip(section.data["columns"], collect_answers(sources), strict=True):
        labels = np.frombuffer(base64.b64decode(column["labels"]), "<u2")
        np.testing.assert_array_equal(labels, answers.labels)
        for packed, answer in zip(column["right"], answers.given, strict=True):
            bits = np.unpackbits(np.frombuffer(base64.b64decode(packed), np.uint8), count=len(labels))
            np.testing.assert_array_equal(bits, answer.predicted == answers.labels)
    assert section.data["columns"][0]["classes"][0] == HOSTILE


def test_one_backbone_has_no_differences(tmp_path: Path) -> None:
    write_board(tmp_path, backbones=1, tasks=("linear",))
    assert classes_section(gather([tmp_path], ReportOptions())) is None


def test_reliability_is_that_of_the_confidences(sources: Sources) -> None:
    section = made(calibration_section(sources))
    answers = [one for one in collect_answers(sources) if one.given[0].confidences is not None]
    assert len(section.context["charts"]) == len(answers) == 2
    answer, view = answers[0].given[0], section.context["charts"][0].views[0]
    assert answer.confidences is not None
    right = answer.predicted == answers[0].labels
    bins = np.ceil(answer.confidences.astype(np.float64) * 15).clip(1).astype(int)
    expected = [
        (answer.confidences[bins == bin_].mean(), right[bins == bin_].mean()) for bin_ in np.unique(bins)
    ]
    [trace] = view.figure["data"]
    np.testing.assert_allclose(np.array([trace["x"], trace["y"]]).T, expected, atol=1e-5)
    gap = sum(
        abs(x - y) * (bins == bin_).sum() for (x, y), bin_ in zip(expected, np.unique(bins), strict=True)
    )
    assert f"ECE {100 * gap / len(right):.1f} %" in view.summary and f"n = {len(right)}" in view.summary


@pytest.mark.parametrize(("shift", "charts"), [(0.0, 1), (0.1, 2)])
def test_the_head_of_outside_is_drawn_where_it_is_another(tmp_path: Path, shift: float, charts: int) -> None:
    labels = make_labels(100, 4)
    predicted, confidences = make_predictions(labels, 0.6, 3)
    write_classification(tmp_path / "a.json", "a", labels, predicted, confidences)
    top1 = {"outside/linear/top1": 100 * float((labels == predicted).mean())}
    kept = Predictions(labels, {"linear": predicted}, {"linear": confidences * np.float32(1 - shift)})
    write(tmp_path / "o.json", "outside", top1, kept, "a", measured_set="clean")
    section = made(calibration_section(gather([tmp_path], ReportOptions())))
    assert len(section.context["charts"]) == charts


def test_tables_of_all_numbers_have_titles_of_their_own(tmp_path: Path) -> None:
    kept = sample_values(knn=np.full(50, 0.9))
    for name, measured_set in (("a", "clean"), ("a", "noise"), ("b", "noise")):
        settings = {"measured_set": measured_set, "bins": 15 if name == "a" else 10}
        path = tmp_path / f"{name}.{measured_set}.json"
        write(path, "outside", {"outside/noise/knn/auroc": 90.0}, kept, name, **settings)
    tables = made(every_section(gather([tmp_path], ReportOptions()))).context["tables"]
    assert sorted(table["title"] for table in tables) == [
        "outside · made/test",
        "outside · made/test · noise · a",
        "outside · made/test · noise · b",
    ]


@pytest.mark.parametrize(
    ("shift", "words"), [(0.2, "too sure"), (-0.2, "not sure enough"), (0.0, "no difference")]
)
def test_a_verdict_needs_a_difference_beyond_chance(tmp_path: Path, shift: float, words: str) -> None:
    labels = make_labels(400, 4)
    predicted, _ = make_predictions(labels, 0.6, 3)
    accuracy = float((labels == predicted).mean())
    confidences = np.full(400, accuracy + shift, np.float32)
    write_classification(tmp_path / "a.json", "a", labels, predicted, confidences)
    [chart] = made(calibration_section(gather([tmp_path], ReportOptions()))).context["charts"]
    assert words in chart.views[0].summary


def test_scores_stand_with_their_intervals_best_first(sources: Sources) -> None:
    [chart] = made(scores_section(sources)).context["charts"]
    for column, view in zip(sources.board.columns, chart.views, strict=True):
        cells = sorted(sources.board.of(column).values(), key=lambda cell: -cell.value)
        [trace] = view.figure["data"]
        np.testing.assert_allclose(trace["x"], [cell.value for cell in cells], rtol=1e-4)
        low = np.array(trace["x"]) - np.array(trace["error_x"]["arrayminus"])
        np.testing.assert_allclose(low, [cell.low for cell in cells], rtol=1e-4)
        assert all("n = " in text for text in trace["text"])


def test_corruptions_are_lines_from_clean_images_on(sources: Sources) -> None:
    [chart] = made(shifted_section(sources)).context["charts"]
    assert [view.name for view in chart.views] == ["mean of all 2", "fog", "noise"]
    for view in chart.views:
        first = view.figure["data"][0]
        assert (first["name"], first["x"], first["y"]) == ("backbone-0", [0, 1, 3, 5], [90, 86, 78, 70])
    assert chart.views[1].figure["data"][0]["error_y"]["array"] == [2, 2, 2, 2]
    assert chart.views[0].table.rows[0] == ["backbone-0", 0, 90, None, None]


def test_transformed_images_are_curves_beside_raw_pixels(sources: Sources) -> None:
    moved, accuracy = made(invariance_section(sources)).context["charts"]
    for chart in (moved, accuracy):
        assert [view.name for view in chart.views] == ["rotation", "grey"]
        names = [trace["name"] for trace in chart.views[0].figure["data"]]
        assert names == ["backbone-0", "backbone-1", "backbone-2", "pixels"]  # pixels are the same for all
    first, *_, pixels = moved.views[0].figure["data"]
    assert (first["x"], first["y"]) == ([0, 15, 180], [0, 0.2, 0.4])
    assert first["error_y"]["array"][1:] == [0.1, 0.1]
    assert pixels["y"] == [0, 0.5, 1]
    assert moved.views[0].figure["layout"]["xaxis"]["title"]["text"] == "strength: degrees, either way"
    assert "backbone-0: 0.40 at strength 180 (95 % interval 0.3 to 0.5)" in moved.views[0].summary
    last = accuracy.views[1].figure["data"][0]
    assert (last["x"], last["y"]) == ([0, 0.5, 1], [80, 70, 60])
    assert "backbone-0: 60.0 % at strength 1" in accuracy.views[1].summary
    assert "80.0 % as they are" in accuracy.views[1].summary
    assert accuracy.views[0].table.rows[-1] == ["pixels", 180, 20, 19.9, 20.1]


def test_backbones_of_diagnose_share_their_charts_and_collapsed_ones_are_told(tmp_path: Path) -> None:
    for number, moved in enumerate((0.4, math.nan)):
        file = tmp_path / f"{number}.json"
        write_invariance(file, f"net-{number}", 60, moved, "diagnose", measured={"backbone": {"dim": number}})
    charts = made(invariance_section(gather([tmp_path], ReportOptions()))).context["charts"]
    assert len(charts) == 2
    summary = charts[0].views[0].summary
    assert "net-0: 0.40 at strength 180" in summary
    assert "net-1: no number, for its features all point one way" in summary


def test_charts_of_unlike_protocols_are_told_apart(tmp_path: Path) -> None:
    unlike: dict[str, dict[str, Any]] = {"a": {}, "b": {"test": "other/test"}, "c": {"k": 5}}
    for name, changes in unlike.items():
        write_invariance(tmp_path / f"{name}.json", name, 60, 0.4, **changes)
    charts = made(invariance_section(gather([tmp_path], ReportOptions()))).context["charts"]
    titles = [chart.title for chart in charts if chart.title.startswith("How far")]
    ends = ["made/test · a", "other/test", "made/test · c"]
    assert titles == [f"How far features move · {end}" for end in ends]


def test_unknown_images_are_a_view_a_set_and_score(tmp_path: Path) -> None:
    for number, share in enumerate((0.9, 0.7)):
        values = np.full(50, share)
        metrics = {"outside/noise/knn/auroc": 100 * share, "outside/noise/max_logit/auroc": 100 * share}
        kept = sample_values(knn=values, max_logit=values)
        for measured_set in ("noise", "clean"):  # the record of clean images repeats the numbers
            path = tmp_path / f"{number}.{measured_set}.json"
            write(path, "outside", metrics, kept, f"backbone-{number}", measured_set=measured_set)
    [chart] = made(shifted_section(gather([tmp_path], ReportOptions()))).context["charts"]
    assert [view.name for view in chart.views] == ["noise, by kNN", "noise, by max logit"]
    assert chart.views[0].figure["data"][0]["x"] == [90, 70]
    assert "Best: backbone-0 with 90.0 % (no interval was measured, n = 50)" in chart.views[0].summary


def test_cost_is_what_the_records_say(sources: Sources) -> None:
    section = made(cost_section(sources))
    rows = section.context["rows"]
    assert len(rows) == 6 and section.context["without"] == 6
    assert section.context["titles"] == ["seconds", "images", "images/s", "memory (GiB)"]
    assert rows[0]["numbers"] == ["10", "4,000", "320", "3"]
    assert section.context["untold"] == "device memory (GiB) and energy (kJ)"
    [chart] = section.context["charts"]
    assert [trace["x"] for trace in chart.views[0].figure["data"]] == [[10, 15, 20]]
    assert "Fastest: backbone-0, 10 s" in chart.views[0].summary


def test_times_without_the_network_are_not_drawn(tmp_path: Path) -> None:
    labels = make_labels(100, 2)
    costs: dict[str, dict[str, Any]] = {
        "a": COST,
        "b": {**COST, "device": "other device"},
        "c": {**COST, "features_from_cache": 4000},
    }
    for name, cost in costs.items():
        write_classification(tmp_path / f"{name}.json", name, labels, labels, cost=cost)
    section = made(cost_section(gather([tmp_path], ReportOptions())))
    [view] = section.context["charts"][0].views
    assert [trace["name"] for trace in view.figure["data"]] == ["cpu", "other device"]
    assert "1 of 3 are left out: no time, or features from the cache" in view.summary
    assert "Fastest" not in view.summary  # of two devices none is


def test_the_cost_of_a_run_is_that_of_its_folder(tmp_path: Path) -> None:
    write_run(tmp_path / "run", 100)
    cost = Cost(seconds=60.0, images=1200, image_seconds=40.0, device="cpu")
    write_checked_text(tmp_path / "run/cost.json", to_json(cost.to_json()) + "\n")
    [row] = made(cost_section(gather([tmp_path], ReportOptions()))).context["rows"]
    assert (row["backbone"], row["task"], row["numbers"][:3]) == ("run", "pretrain", ["60", "1,200", "30"])
    (tmp_path / "run/cost.json").write_text("{}")
    assert cost_section(gather([tmp_path], ReportOptions())) is None


def test_nothing_measured_is_nothing_shown(tmp_path: Path) -> None:
    labels = make_labels(50, 2)
    write_classification(tmp_path / "a.json", "a", labels, labels)
    alone = gather([tmp_path], ReportOptions())
    assert [function(alone) for function in (classes_section, calibration_section, shifted_section)] == [
        None
    ] * 3
    assert cost_section(alone) is None
    [chart] = made(confusions_section(alone)).context["charts"]
    assert chart.views[0].summary == "a: 50 of 50 samples are right." and chart.views[0].table.rows == []


def test_names_of_classes_are_texts_in_figures(sources: Sources) -> None:
    chart = made(confusions_section(sources)).context["charts"][0]
    names = chart.views[0].figure["layout"]["yaxis"]["ticktext"]
    assert html.unescape(names[0]) == HOSTILE[:11] + "…" + HOSTILE[-6:]
    assert not any("<" in name for name in names)


def test_answers_to_other_labels_do_not_stand_beside_the_best(tmp_path: Path) -> None:
    write_knn(tmp_path / "a.json", "a", np.arange(50) < 40)
    write_knn(tmp_path / "b.json", "b", np.arange(50) < 30, labels=np.arange(50) % 4)
    write_knn(tmp_path / "c.json", "c", np.arange(50) < 20)
    columns = collect_answers(gather([tmp_path], ReportOptions()))
    names = [[answer.name for answer in column.given] for column in columns]
    assert sorted(names) == [["a", "c"], ["b"]]
