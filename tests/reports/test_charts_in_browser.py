"""Charts, the choice of classes and the pictures in a real browser, against computations in Python."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from support.browser import Browser, OpenedPage
from support.report_records import HOSTILE, write_board, write_pictures, write_robustness, write_run

from siamtransfer.metrics.multiple_comparisons import holm
from siamtransfer.metrics.paired_bootstrap import mcnemar
from siamtransfer.reports.answers import Answers, collect_answers
from siamtransfer.reports.options import ReportOptions
from siamtransfer.reports.page import render
from siamtransfer.reports.sections.calibration import calibration_section
from siamtransfer.reports.sections.classes import classes_section
from siamtransfer.reports.sections.confusions import confusions_section
from siamtransfer.reports.sections.cost import cost_section
from siamtransfer.reports.sections.curves import curves_section
from siamtransfer.reports.sections.pictures import pictures_section
from siamtransfer.reports.sections.scores import scores_section
from siamtransfer.reports.sections.shifted import shifted_section
from siamtransfer.reports.sources import Sources, gather

SECTIONS = (
    *(scores_section, curves_section, classes_section, confusions_section),
    *(calibration_section, shifted_section, cost_section, pictures_section),
)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    """Something for every section."""
    folder = tmp_path_factory.mktemp("all")
    write_board(folder / "suite", samples=240, classes=5)
    write_robustness(folder / "suite/backbone-0/robustness.json", "backbone-0", 90)
    write_run(folder / "run", 400)
    write_pictures(folder / "suite/backbone-0")
    return gather([folder], ReportOptions())


@pytest.fixture(scope="module")
def page(sources: Sources, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of these sections alone."""
    sections = [section for function in SECTIONS if (section := function(sources)) is not None]
    assert len(sections) == len(SECTIONS)
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(render("Charts", sections, {"measurements": []}, []))
    return path


@pytest.fixture(scope="module")
def wide(browser: Browser, page: Path) -> Iterator[OpenedPage]:
    """The page in a wide window, which the tests share: what they choose is no matter to the others."""
    with browser.open(page) as opened:
        yield opened


def draw_all(opened: OpenedPage) -> list[Any]:
    """Scrolls to every chart and waits until it is drawn; the figures."""
    figures: list[Any] = opened.page.query_selector_all("[data-chart]")
    for figure in figures:
        figure.scroll_into_view_if_needed()
        opened.page.wait_for_function("figure => figure.dataset.drawn !== undefined", arg=figure)
    return figures


def test_all_charts_are_drawn_in_silence(wide: OpenedPage) -> None:
    figures = draw_all(wide)
    assert len(figures) == 13
    assert all(figure.query_selector(".main-svg") for figure in figures)
    assert not wide.is_wider_than_window()
    assert wide.page.evaluate("window.hacked") is None
    wide.require_silence()


def test_charts_fit_a_phone_at_night(browser: Browser, page: Path) -> None:
    with browser.open(page, width=360, scheme="dark", touch=True) as opened:
        draw_all(opened)
        assert not opened.is_wider_than_window()
        widest = "Math.max(...[...document.querySelectorAll('.main-svg')].map((one) => one.clientWidth))"
        assert opened.page.evaluate(widest) <= 360
        opened.require_silence()


def test_a_change_of_theme_changes_the_colours(wide: OpenedPage) -> None:
    colour = "document.querySelector('#chart-loss .js-line').style.stroke"
    wide.page.locator("#chart-loss").scroll_into_view_if_needed()
    wide.page.wait_for_selector("#chart-loss .js-line")
    light = wide.page.evaluate(colour)
    wide.page.click("#theme-switch")
    wide.page.wait_for_function(f"{colour} !== {light!r}")
    assert wide.page.evaluate(colour).startswith("rgb(")
    wide.require_silence()


def test_keys_go_from_point_to_point_and_say_where(wide: OpenedPage, sources: Sources) -> None:
    cells = sorted(sources.board.of(sources.board.columns[0]).values(), key=lambda cell: -cell.value)
    wide.page.locator("#chart-scores").scroll_into_view_if_needed()
    wide.page.wait_for_selector("#chart-scores .main-svg")
    wide.page.focus("#chart-scores .chart-plot")
    told = wide.page.locator("#chart-scores .chart-point")
    for cell in cells:
        wide.page.keyboard.press("ArrowRight")
        assert told.inner_text().startswith(f"{cell.measurement.backbone.label}: {cell.value:.1f} %")
    wide.require_silence()


def test_a_chart_has_a_table_and_its_choice_holds_for_the_section(wide: OpenedPage) -> None:
    wide.page.select_option("#chart-confusions-0 select", label="backbone-2")
    assert wide.page.input_value("#chart-confusions-1 select") == wide.page.input_value(
        "#chart-confusions-0 select"
    )
    for chart in ("chart-confusions-0", "chart-confusions-1"):
        assert wide.page.locator(f"#{chart}-summary").inner_text().startswith("backbone-2:")
    wide.page.click("#chart-confusions-0 summary")
    table = wide.page.locator("#chart-confusions-0 table")
    assert table.locator("th").first.inner_text() == "true class"
    assert HOSTILE in table.inner_text()
    wide.require_silence()


def expected_rows(answers: Answers, first: int, second: int) -> dict[str, list[float]]:
    """By class: n, both accuracies, difference, Bonett & Price's interval, and p, in Python."""
    right = [given.predicted == answers.labels for given in answers.given]
    a, b = right[first], right[second]
    rows, p_values = {}, []
    z = stats.norm.ppf(0.975)
    for label in np.unique(answers.labels):
        of_class = answers.labels == label
        n = int(of_class.sum())
        only_a, only_b = int((a & ~b)[of_class].sum()), int((b & ~a)[of_class].sum())
        p1, p2 = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
        half = z * np.sqrt((p1 + p2 - (p2 - p1) ** 2) / (n + 2))
        rows[answers.name_of(int(label))] = [
            n,
            100 * a[of_class].mean(),
            100 * b[of_class].mean(),
            100 * (only_b - only_a) / n,
            100 * (p2 - p1 - half),
            100 * (p2 - p1 + half),
        ]
        p_values.append(mcnemar(only_a, only_b))
    for name, p in zip(rows, holm(np.array(p_values)), strict=True):
        rows[name].append(float(p))
    return rows


def test_differences_by_class_are_those_of_python_for_every_pair(wide: OpenedPage, sources: Sources) -> None:
    answers = [one for one in collect_answers(sources) if len(one.given) > 1]
    for place, of_column in enumerate(answers):
        wide.page.select_option("#classes-pair [name=column]", str(place))
        for first, second in permutations(range(3), 2):
            wide.page.select_option("#classes-pair [name=first]", str(first))
            wide.page.select_option("#classes-pair [name=second]", str(second))
            shown = wide.page.evaluate("window.reportCharts.shown('chart-classes')")
            rows = {name: numbers for name, *numbers in shown["rows"]}
            expected = expected_rows(of_column, first, second)
            assert rows.keys() == expected.keys()
            for name, numbers in expected.items():
                np.testing.assert_allclose(rows[name], numbers, atol=0.051)
                assert rows[name][-1] == pytest.approx(numbers[-1], rel=1e-2)
            differences = [numbers[3] for numbers in rows.values()]
            assert differences == sorted(differences, reverse=True)
            clear = sum(numbers[-1] < 0.05 for numbers in expected.values())
            assert shown["data"][0]["marker"]["symbol"].count("diamond") == clear
    wide.require_silence()


def test_two_columns_that_are_swapped_turn_the_differences(wide: OpenedPage) -> None:
    shown = "window.reportCharts.shown('chart-classes').rows.map((row) => [row[0], row[4]])"
    before = dict(wide.page.evaluate(shown))
    wide.page.click("#classes-pair [name=swap]")
    after = dict(wide.page.evaluate(shown))
    assert before == {name: -difference for name, difference in after.items()}
    assert any(before.values())


def test_pictures_open_by_keyboard_and_escape_closes_them(wide: OpenedPage) -> None:
    button = wide.page.locator(".picture").first
    button.focus()
    wide.page.keyboard.press("Enter")
    dialog = wide.page.locator("#lightbox")
    assert dialog.is_visible()
    assert "1 of 2: attention of backbone-0" in dialog.inner_text()
    wide.page.keyboard.press("ArrowRight")
    assert "2 of 2: pca of backbone-0" in dialog.inner_text()
    assert wide.page.evaluate("document.querySelector('.lightbox-stage img').naturalWidth") == 450
    wide.page.keyboard.press("Escape")
    assert not dialog.is_visible()
    focused = "document.activeElement.getAttribute('aria-label')?.startsWith('Enlarge pca')"
    wide.page.wait_for_function(focused)
    wide.require_silence()
