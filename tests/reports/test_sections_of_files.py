"""Curves of runs and pictures beside records."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
from PIL import Image
from support.report_records import write_pictures, write_run

from siamtransfer.reports.options import ReportOptions
from siamtransfer.reports.sections.curves import collapse_verdict, curves_section, thinned, unique_names
from siamtransfer.reports.sections.pictures import Shown, alternative, fit, owner_of
from siamtransfer.reports.sources import Picture, RunFolderView, Sources, gather
from siamtransfer.training.journal_rows import read_rows


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    """A healthy run and one that collapses half-way."""
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder / "good")
    write_run(folder / "bad", collapses=True)
    return gather([folder], ReportOptions())


def test_curves_are_the_rows_of_the_journal(runs: Sources) -> None:
    section = curves_section(runs)
    assert section is not None
    charts = {chart.id: chart for chart in section.context["charts"]}
    assert list(charts) == ["chart-knn", "chart-loss", "chart-health", "chart-rank", "chart-rate"]
    rows = read_rows(runs.runs[1].path / "metrics.jsonl")
    view = charts["chart-loss"].views[1]
    losses = [(row["step"], row["loss"]) for row in rows if "loss" in row]
    [trace] = view.figure["data"]
    np.testing.assert_allclose(list(zip(trace["x"], trace["y"], strict=True)), losses, rtol=1e-5)
    for chart in charts.values():
        for view in chart.views:
            go.Figure(view.figure)


def test_knn_stands_beside_its_baselines(runs: Sources) -> None:
    section = curves_section(runs)
    assert section is not None
    [view] = section.context["charts"][0].views
    names = [trace["name"] for trace in view.figure["data"]]
    assert names == ["bad", "bad: raw pixels", "good", "good: raw pixels"]
    assert view.figure["data"][1]["y"] == [34, 34] and view.figure["data"][0]["y"] == [30, 40, 50, 60]
    assert "good: 60.00 % at step 1500, beside the baselines raw pixels 34.00." in view.summary


def test_the_alarm_of_a_collapse_is_explained(runs: Sources) -> None:
    bad, good = runs.runs
    assert collapse_verdict(bad).startswith("COLLAPSE alarm at step 1200: in 3 checks in a row")
    assert collapse_verdict(good).startswith("No collapse alarm in 20 checks")
    without = RunFolderView(Path("x"), [{"step": 1, "loss": 1.0}], {})
    assert "not measured" in collapse_verdict(without)


def test_bounds_of_a_collapse_are_those_of_the_method() -> None:
    rows = [
        {"step": step, "health/std": 0.35, "health/rank_share": 0.9, "health/effective_rank": 9}
        for step in range(5)
    ]
    verdicts = {
        name: collapse_verdict(RunFolderView(Path("x"), rows, {"method": {"name": name}}))
        for name in ("swav", "simsiam")
    }
    assert verdicts["swav"].startswith("No collapse") and verdicts["simsiam"].startswith("COLLAPSE")


def test_thinned_lines_keep_their_ends_and_their_spikes() -> None:
    values = np.random.default_rng(0).normal(size=10_000)
    values[[1234, 8765]] = 50, -50
    points = list(enumerate(values.tolist()))
    kept = thinned(points, 400)
    assert len(kept) <= 400 and set(kept) <= set(points) and kept == sorted(kept)
    assert {points[0], points[-1], points[1234], points[8765]} <= set(kept)
    assert thinned(points[:400], 400) == points[:400]


def test_runs_of_one_name_are_numbered() -> None:
    assert unique_names(["a", "b", "a"]) == ["a (1)", "b", "a (2)"]


def test_pictures_fit_a_budget(tmp_path: Path) -> None:
    names = ["attention", "pca", "x"]
    write_pictures(tmp_path, names)
    pictures = [Picture(tmp_path / f"{name}.png") for name in names]
    roomy, left_out = fit(pictures)
    assert ([picture.name for picture in roomy], left_out) == (names, [])
    sizes = [size_of(picture) for picture in roomy]
    tight, left_out = fit(pictures, budget=sum(sizes) * 3 // 4)
    assert ([picture.name for picture in tight], left_out) == (names, [])
    assert roomy[0].width == 450 and tight[0].width < 450
    assert sum(map(size_of, tight)) <= sum(sizes) * 3 // 4
    none, left_out = fit(pictures, budget=100)
    assert none == [] and len(left_out) == 3 and "the page would be too large" in left_out[0]


def size_of(picture: Shown) -> int:
    """Bytes of a picture's content."""
    return len(base64.b64decode(picture.address.partition(",")[2]))


def test_pictures_are_shown_as_they_are(tmp_path: Path) -> None:
    pixels = np.zeros((40, 80, 4), np.uint8)
    pixels[:, :40] = (200, 30, 30, 255)  # the right half is transparent
    Image.fromarray(pixels).save(tmp_path / "a.png")
    [shown], left_out = fit([Picture(tmp_path / "a.png")])
    content = Image.open(io.BytesIO(base64.b64decode(shown.address.partition(",")[2])))
    assert (content.format, content.size, left_out) == ("WEBP", (80, 40), [])
    assert np.abs(np.array(content.getpixel((10, 20))) - (200, 30, 30)).max() < 12
    assert np.abs(np.array(content.getpixel((70, 20))) - 255).max() < 12


def test_pictures_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    write_pictures(tmp_path, ["good"])
    whole = (tmp_path / "good.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    shown, left_out = fit([Picture(tmp_path / f"{name}.png") for name in ("broken", "good", "cut", "absent")])
    assert [picture.name for picture in shown] == ["good"]
    named = [sentence.partition(" is not shown")[0].rpartition("/")[2] for sentence in left_out]
    assert named == ["broken", "cut", "absent"]
    assert "it is no whole picture" in left_out[0] and "No such file" in left_out[2]


def test_the_alternative_says_what_is_on_a_picture_and_whose_it_is() -> None:
    picture = Picture(Path("/suite/dino/attention/pca.png"))
    assert [owner_of(picture, labels) for labels in ({"dino", "moco"}, {"moco"})] == ["dino", "attention"]
    text = alternative(picture, "dino")
    assert text == "pca of dino: the first three principal components of the patches as colours"
    assert alternative(Picture(Path("/suite/dino/x.png")), "dino") == "x of dino"
