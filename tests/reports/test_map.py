"""The map and the gallery of a report: what the page holds is what the map and the records say."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.browser import Browser
from support.maps import small_map
from support.report_records import HOSTILE, make_labels, make_predictions, write_classification

from siamtransfer.image_map.image_map import ImageMap
from siamtransfer.reports.answers import collect_answers
from siamtransfer.reports.map_data import Predicted, map_content, prediction_colours
from siamtransfer.reports.options import ReportOptions
from siamtransfer.reports.page import render
from siamtransfer.reports.sections.gallery import atypical, gallery_section, of_one_column, typical, worst
from siamtransfer.reports.sections.map import map_section
from siamtransfer.reports.sources import Sources, gather

IMAGES, DRAWN = 90, 60


def made_map(name: str, labels: np.ndarray, indices: np.ndarray, **facts: Any) -> ImageMap:
    """A map of some images of the set that records score, by the backbone of that name."""
    base = small_map(images=len(indices))
    images = {"name": "made", "split": "test", "fingerprint": "test", "images": len(labels), **facts}
    backbone = {"backbone": f"runs/{name}/checkpoint.pth", "weights_digest": f"weights of {name}"}
    names = tuple(f"{HOSTILE}/{n}.png" if n == 0 else f"images/{n:03}.png" for n in range(len(indices)))
    return small_map(
        images=len(indices),
        labels=labels[indices],
        indices=indices,
        names=names,
        class_names=(HOSTILE, "green", "blue"),
        facts={**base.facts, "set": images, "backbone": backbone},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two backbones with a record and a map each, of the same images."""
    root = tmp_path_factory.mktemp("maps")
    labels = make_labels(IMAGES, 3)
    indices = np.sort(np.random.default_rng(0).permutation(IMAGES)[:DRAWN])
    for number, name in enumerate(("one", "two")):
        predicted, sure = make_predictions(labels, 0.8 - 0.3 * number, number)
        write_classification(root / name / "knn.json", name, labels, predicted, sure, task="knn")
        made_map(name, labels, indices).write(root / name / "map.npz")
    return root


@pytest.fixture(scope="module")
def sources(folder: Path) -> Sources:
    return gather([folder], ReportOptions())


def unpack(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), kind)


def test_the_page_holds_the_arrays_of_the_map(sources: Sources):
    content = map_content(sources, collect_answers(sources)).as_json()
    assert len(content["maps"]) == 2
    assert len(content["groups"]) == 1  # the same pictures are held once
    first, group = sources.maps[0], content["groups"][0]
    np.testing.assert_array_equal(unpack(group["labels"], "<i2"), first.labels)
    shown = content["maps"][0]
    positions = unpack(shown["positions"], "<u2").reshape(-1, 2) / 65535
    np.testing.assert_allclose(positions, first.positions, atol=1e-5)
    neighbours = unpack(shown["neighbours"], "<u2").reshape(DRAWN, shown["neighbourCount"])
    np.testing.assert_array_equal(neighbours, first.neighbours)
    np.testing.assert_allclose(
        unpack(shown["similarities"], "<i2") / 1e4, first.similarities.ravel(), atol=1e-4
    )
    sheet = base64.b64decode(group["sheets"][0].partition(",")[2])
    assert sheet == first.thumbnails.sheets[0]


def test_records_on_the_same_images_colour_the_map(sources: Sources):
    answers = collect_answers(sources)
    image_map = sources.maps[0]
    found = prediction_colours(image_map, answers)
    assert len(found) == 2
    kept = answers[0].given[0]
    np.testing.assert_array_equal(found[0].predicted, kept.predicted[image_map.indices])
    assert kept.confidences is not None
    np.testing.assert_array_equal(found[0].confidences, kept.confidences[image_map.indices])


def test_records_on_other_images_do_not(sources: Sources):
    answers, labels, indices = collect_answers(sources), make_labels(IMAGES, 3), sources.maps[0].indices
    other_set = made_map("one", labels, indices, fingerprint="another")
    other_count = made_map("one", labels, indices, images=IMAGES + 1)
    other_labels = made_map("one", (labels + 1) % 3, indices)
    for image_map in (other_set, other_count, other_labels):
        assert prediction_colours(image_map, answers) == []


def test_maps_beyond_the_budget_are_named(sources: Sources):
    answers = collect_answers(sources)
    one = map_content(sources, answers, budget=3 * 10**4)
    assert map_content(sources, answers, budget=10).maps == []
    assert len(map_content(sources, answers, budget=10).left_out) == 2
    assert len(one.maps) + len(one.left_out) == 2


def test_where_no_map_fits_the_section_says_so(sources: Sources, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("siamtransfer.reports.map_data.BUDGET", 10)
    section = map_section(sources)
    assert section is not None
    assert gallery_section(sources) is None
    page = render("Map", [section], {"measurements": []}, [])
    assert "no room for the maps of one on made/test, two on made/test" in page
    assert "imageMaps" not in page


def test_a_page_without_maps_has_no_section(folder: Path):
    bare = gather([folder / "one" / "knn.json"], ReportOptions())
    assert map_section(bare) is None
    assert gallery_section(bare) is None


def test_typical_images_are_the_first_of_each_class():
    values = np.array([0.1, 0.9, 0.5, 0.8, np.nan, 0.2], np.float32)
    image_map = small_map(typicality=values)  # classes 0 1 2 0 1 2
    assert typical(image_map).tolist() == [1, 3, 2]
    assert atypical(image_map).tolist() == [0, 5, 2, 3, 1]
    unlabelled = small_map(typicality=values, labels=np.full(6, -1))
    assert typical(unlabelled, most=2).tolist() == [1, 3]


def test_the_worst_are_wrong_in_most_then_surest():
    labels = np.array([0, 1, 2, 0, -1])
    both = [
        Predicted("a", "a", "knn", np.array([1, 1, 0, 1, 0]), np.array([0.5, 1, 0.9, 0.7, 1], np.float32)),
        Predicted("b", "b", "knn", np.array([1, 1, 2, 2, 0]), np.array([0.5, 1, 0.9, 0.9, 1], np.float32)),
        Predicted("c", "c", "linear", labels, None),
    ]
    assert of_one_column(both) == both[:2]
    assert worst(labels, both[:2]).tolist() == [3, 0, 2]
    assert worst(labels, [both[2]]).tolist() == []


@pytest.fixture(scope="module")
def page(sources: Sources, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of map and gallery alone."""
    sections = [section for make in (map_section, gallery_section) if (section := make(sources)) is not None]
    assert [section.id for section in sections] == ["map", "gallery"]
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(render("Map", sections, {"measurements": []}, []))
    return path


def neighbours_of(image_map: ImageMap, image: int) -> list[str]:
    return [image_map.names[n] for n in image_map.neighbours[image]]


def listed(opened: Any) -> list[str]:
    names: list[str] = opened.page.locator("#map-panel ol .map-name").all_text_contents()
    return names


def test_a_click_and_a_key_open_the_neighbours(browser: Browser, page: Path, sources: Sources):
    image_map = sources.maps[0]
    with browser.open(page) as opened:
        tab = opened.page
        box = tab.locator("#map-canvas").bounding_box()
        apart = image_map.positions - image_map.positions[:, None]
        distances = np.hypot(apart[..., 0], apart[..., 1]) + 9 * np.eye(len(image_map))
        image = int(distances.min(axis=1).argmax())  # the one with the most room around it
        side = min(box["width"], box["height"]) - 2 * 28
        x, y = (image_map.positions[image] - 0.5) * side + [box["width"] / 2, box["height"] / 2]
        tab.mouse.click(box["x"] + x, box["y"] + y)
        assert tab.locator("#map-panel h3").text_content() == image_map.names[image]
        assert listed(opened) == neighbours_of(image_map, image)

        tab.locator("#map-panel ol button").first.click()
        second = int(image_map.neighbours[image, 0])
        assert tab.locator("#map-panel h3").text_content() == image_map.names[second]
        assert listed(opened) == neighbours_of(image_map, second)
        tab.get_by_role("button", name="Back").click()
        assert tab.locator("#map-panel h3").text_content() == image_map.names[image]
        tab.keyboard.press("Escape")
        assert tab.locator("#map-panel").is_hidden()
        assert tab.evaluate("document.activeElement.id") == "map-canvas"

        tab.keyboard.press("Enter")
        middle = int(np.hypot(*(image_map.positions - 0.5).T).argmin())
        assert tab.locator("#map-panel h3").text_content() == image_map.names[middle]
        assert listed(opened) == neighbours_of(image_map, middle)
        assert tab.evaluate("document.activeElement.id") == "map-panel-title"
    opened.require_silence()


def in_sight(tab: Any) -> int:
    """How many images the canvas shows."""
    return int(tab.locator("#map-canvas").get_attribute("data-in-sight"))


def settle(tab: Any) -> None:
    """Waits until what was asked for is drawn."""
    tab.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def test_zoom_legend_search_and_gallery(browser: Browser, page: Path, sources: Sources):
    image_map = sources.maps[0]
    with browser.open(page, scheme="dark") as opened:
        tab = opened.page
        assert in_sight(tab) == DRAWN
        tab.locator("#map-canvas").focus()
        for _ in range(5):
            tab.keyboard.press("+")
        settle(tab)
        assert in_sight(tab) < DRAWN
        tab.keyboard.press("0")
        settle(tab)
        assert in_sight(tab) == DRAWN
        tab.get_by_role("button", name="green").click()
        settle(tab)
        assert in_sight(tab) == int((image_map.labels != 1).sum())
        options = tab.locator("#map-colours option").all_text_contents()
        assert sum("right or wrong" in option for option in options) == 2
        tab.select_option("#map-colours", index=1)
        legend = " ".join(tab.locator("#map-legend").all_text_contents())
        right = prediction_colours(image_map, collect_answers(sources))[0].predicted == image_map.labels
        assert f"right{right.sum()}wrong{(~right).sum()}" in legend
        tab.fill("#map-search", "007")
        assert tab.locator("#map-found .map-name").all_text_contents() == ["images/007.png"]
        tab.press("#map-search", "Enter")
        assert tab.locator("#map-panel h3").text_content() == "images/007.png"
        tab.select_option("#map-which", index=1)
        assert tab.locator("#map-panel").is_hidden()
        tab.locator(".gallery:visible .gallery-open").first.click()
        named = tab.locator(".gallery:visible .gallery-name").first.get_attribute("title")
        assert tab.locator("#map-panel h3").text_content() == named
        assert tab.evaluate("window.hacked") is None
    opened.require_silence()


def test_a_phone_shows_it_by_touch(browser: Browser, page: Path):
    with browser.open(page, width=390, height=844, touch=True, scale=2) as opened:
        tab = opened.page
        assert not opened.is_wider_than_window()
        box = tab.locator("#map-canvas").bounding_box()
        tab.locator("[data-zoom=in]").click()
        image_map_middle = {"x": box["width"] / 2, "y": box["height"] / 2}
        tab.locator("#map-canvas").focus()
        tab.keyboard.press("Enter")
        assert tab.locator("#map-panel ol button").count() == 2
        tab.locator("#map-canvas").tap(position=image_map_middle)
        assert tab.locator("#map-panel").is_visible()
        assert not opened.is_wider_than_window()
    opened.require_silence()
