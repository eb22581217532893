"""The page in a real browser without a network: by mouse, by touch, by keyboard, in both themes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.boards import answers, write_knn
from support.browser import Browser, OpenedPage

from siamtransfer.reports import ReportOptions, write_report

LABELS = ("<img src=x onerror=alert(1)>", "b", "c")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("browser")
    for place, (name, own) in enumerate(zip(LABELS, answers(0, 0.9, 0.6, 0.3), strict=True)):
        for size in (224, 384):
            path = root / "records" / f"{place}-{size}.json"
            if (place, size) != (2, 384):
                write_knn(path, name, own, transform={"crop": size}, backbone=f"{name}.pth")
    write_report([root / "records"], root / "page.html", ReportOptions(index=False))
    return root / "page.html"


@pytest.fixture
def wide(browser: Browser, page: Path) -> Iterator[OpenedPage]:
    with browser.open(page) as opened:
        yield opened
        opened.require_silence()


def test_hovering_a_number_shows_its_protocol_and_leaving_hides_it(wide: OpenedPage) -> None:
    number = wide.page.locator("#numbers button.number").first
    number.hover()
    popover = wide.page.locator("#popover")
    popover.wait_for(state="visible")
    text = popover.inner_text()
    assert "made/test" in text and "transform · crop" in text and "224" in text
    assert "95 % interval" in text and "Wu et al. 2018" in text
    assert "siamtransfer knn" in text
    assert popover.locator("img").count() == 0  # a name is text
    wide.page.locator("h1").hover()
    popover.wait_for(state="hidden")


def test_the_keyboard_goes_from_number_to_number_and_into_the_popover(wide: OpenedPage) -> None:
    page, focused = wide.page, "document.activeElement.textContent"
    page.keyboard.press("Tab")
    assert page.evaluate(focused) == "Skip to the answer"
    page.locator("#numbers button.number").first.focus()
    first = page.evaluate(focused)
    page.keyboard.press("ArrowDown")
    second = page.evaluate(focused)
    assert second != first
    assert page.locator("#popover").is_visible()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.className") == "close"
    page.keyboard.press("Escape")
    assert not page.locator("#popover").is_visible()
    assert page.evaluate(focused) == second
    stops = page.locator("#numbers button.number[tabindex='0']")
    assert stops.count() == 1  # the table is one stop of the Tab key


def test_headings_sort_and_missing_numbers_stay_last(wide: OpenedPage) -> None:
    heading = wide.page.locator("#numbers thead th").last
    rows = (
        "[...document.querySelectorAll('#numbers tbody tr')].map(row => row.lastElementChild.dataset.value)"
    )
    heading.locator("button").focus()
    wide.page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    down = wide.page.evaluate(rows)
    wide.page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    up = wide.page.evaluate(rows)
    assert down[-1] == up[-1] == ""
    assert [float(value) for value in down[:-1]] == sorted(map(float, down[:-1]), reverse=True)
    assert up[:-1] == down[:-1][::-1]


def test_files_are_saved_and_commands_copied_without_a_network(wide: OpenedPage, tmp_path: Path) -> None:
    with wide.page.expect_download() as waiting:
        wide.page.locator("button[data-file='files/scores.csv'][data-act='save']").click()
    waiting.value.save_as(tmp_path / "scores.csv")
    assert (tmp_path / "scores.csv").read_text().startswith("backbone,task,")
    missing = wide.page.locator("#numbers button[data-copy]").first
    assert "c.pth" in (missing.get_attribute("data-copy") or "")
    missing.evaluate("button => button.closest('details').open = true")
    missing.click()
    wide.page.locator("#status", has_text="Copied").wait_for(state="attached")


def test_a_tap_on_a_phone_shows_the_protocol_and_nothing_is_cut_off(browser: Browser, page: Path) -> None:
    with browser.open(page, width=360, height=720, touch=True, scheme="dark") as opened:
        assert not opened.is_wider_than_window()
        dark = "getComputedStyle(document.body).backgroundColor"
        before = opened.page.evaluate(dark)
        opened.page.locator("#theme-switch").tap()
        assert opened.page.evaluate(dark) != before
        opened.page.locator("#answer button.number").first.tap()
        box = opened.page.locator("#popover").bounding_box()
        assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= 360
        assert box["y"] + box["height"] <= 721
        opened.page.locator("#popover .close").tap()
        assert not opened.page.locator("#popover").is_visible()
        opened.require_silence()
