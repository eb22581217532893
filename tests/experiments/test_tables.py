"""Tables and pictures of a suite are made from records alone, and say what is not measured."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure
from support.experiment_records import record_of, small_suite, write_small_suite

from siamtransfer.experiments.pictures import draw, stack
from siamtransfer.experiments.records import Records
from siamtransfer.experiments.run import Places, show
from siamtransfer.experiments.suites import read_suite
from siamtransfer.experiments.tables import table
from siamtransfer.utils.errors import UserError


def test_a_row_says_what_was_published_and_measured(tmp_path: Path) -> None:
    suite = small_suite(tmp_path)
    records = Records(tmp_path, suite)
    records.add([record_of(suite["slow"], seed, value) for seed, value in ((0, 20.0), (1, 22.0))])
    records.add([record_of(suite["fast"], 0, 30.0, alarms=2), record_of(suite["fast"], 1, 32.1)])
    lines = table(suite, records).splitlines()
    assert lines[0].startswith("|  | question | published | kNN top-1 | difference |")
    assert lines[2] == (
        "| `fast` | With a high rate? | 68.1 (a paper, table 1) | 31.1 ± 13.3 | **+10.1** (+9.4 to +10.7) "
        "| 0.75 | 12.0 | 1 of 2 |"
    )
    assert lines[3] == (
        "| `slow` | With a low rate? | 68.1 (a paper, table 1) | 21.0 ± 12.7 |  | 0.75 | 12.0 | none |"
    )
    assert lines[-1].startswith("2 seeds a row; ")
    assert lines[-1].endswith(" Raw pixels: 13.0.")


def test_the_legend_names_what_the_first_panel_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a frozen layer, which has no gradient."""
    suite = small_suite(tmp_path)
    curves = {"gradient_norm/first_layer": "of the first layer", "loss": "the loss"}
    picture = dataclasses.replace(suite.pictures[0], curves=curves)
    slow, fast = record_of(suite["slow"], 0, 20.0), record_of(suite["fast"], 0, 21.0)
    slow.curves["gradient_norm/first_layer"] = [[1, 0.5], [2, 0.4]]
    records = Records(tmp_path, suite)
    records.add([slow, fast])
    figures: list[Figure] = []
    monkeypatch.setattr(plt, "close", figures.append)
    draw(suite, picture, records, tmp_path / "loss.png")
    monkeypatch.undo()
    (legend,) = figures[0].legends
    assert [text.get_text() for text in legend.get_texts()] == ["slowly", "quickly"]
    plt.close(figures[0])


def test_further_scores_have_columns_and_a_rank_correlation(tmp_path: Path) -> None:
    folder = write_small_suite(tmp_path)
    (folder / "medium.yaml").write_text((folder / "fast.yaml").read_text().replace("0.5}", "0.2}"))
    with (folder / "suite.yaml").open("a") as file:
        file.write("scores: [{name: AP, metric: AP, commands: [detection]}]\n")
    suite = read_suite(folder)
    records = Records(tmp_path, suite)
    for name, top1, found in (("slow", 20.0, 7.0), ("fast", 30.0, 9.0), ("medium", 25.0, 8.0)):
        records.add([record_of(suite[name], 0, top1, AP=found)])
    lines = table(suite, records).splitlines()
    assert lines[0].endswith("| alarms | AP |")
    assert [line.split(" | ")[-1] for line in lines[2:5]] == ["9.0 |", "8.0 |", "7.0 |"]
    assert lines[-1].endswith("Rank correlation of kNN top-1 and AP over the rows: 1.00.")
    records.add([record_of(suite["fast"], 0, 30.0, AP=7.5)])
    assert lines[-1].replace("1.00", "0.50") == table(suite, records).splitlines()[-1]


def test_what_is_not_measured_is_said(tmp_path: Path) -> None:
    suite = small_suite(tmp_path)
    records = Records(tmp_path, suite)
    records.add([record_of(suite["slow"], 0, 20.0)])
    lines = table(suite, records).splitlines()
    assert lines[2] == "| `fast` | With a high rate? | 68.1 (a paper, table 1) | not measured | | | | |"
    assert "| 20.0 |  |" in lines[3]
    assert lines[-1].startswith("0 to 1 seeds a row; ")
    assert {line.count("|") for line in lines[:4]} == {9}


def test_the_picture_has_the_steps_that_all_seeds_share(tmp_path: Path) -> None:
    suite = small_suite(tmp_path)
    first, second = (record_of(suite["slow"], seed, 20.0) for seed in (0, 1))
    second.curves["loss"].append([3, -9.0])
    steps, values = stack([first, second], "loss")
    assert steps.tolist() == [1, 2]
    np.testing.assert_allclose(values, [[-0.1, -0.3], [-1.1, -1.3]])
    assert not len(stack([first], "accuracy")[0])
    records = Records(tmp_path, suite)
    records.add([first, second])
    file = tmp_path / "loss.png"
    with pytest.raises(UserError, match=r"rates/fast has no record, so loss\.png cannot be drawn"):
        draw(suite, suite.pictures[0], records, file)
    assert not file.exists()
    records.add([record_of(suite["fast"], 0, 30.0)])
    draw(suite, suite.pictures[0], records, file)
    assert matplotlib.image.imread(file)[..., :3].std() > 0.05


def test_show_needs_records_alone(tmp_path: Path) -> None:
    suite = small_suite(tmp_path)
    Records(tmp_path, suite).add([record_of(suite[name], 0, 20.0) for name in ("slow", "fast")])
    page = tmp_path / "PAGE.md"
    page.write_text("<!-- suite rates -->\n<!-- end of suite rates -->\n")
    show(suite, Places(tmp_path / "no-runs", tmp_path, page))
    assert "| `slow` |" in page.read_text()
    assert (tmp_path / "loss.png").exists()


def test_a_picture_without_its_records_is_named_and_the_table_is_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    suite = small_suite(tmp_path)
    Records(tmp_path, suite).add([record_of(suite["slow"], 0, 20.0)])
    page = tmp_path / "PAGE.md"
    page.write_text("<!-- suite rates -->\n<!-- end of suite rates -->\n")
    with caplog.at_level("INFO"):
        show(suite, Places(tmp_path / "no-runs", tmp_path, page))
    assert "| `slow` |" in page.read_text()
    assert not (tmp_path / "loss.png").exists()
    assert "loss.png is not drawn: rates has no record of fast" in caplog.text
