"""What a suite says of a measurement that is done."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from siamtransfer.suites.cell import Cell
from siamtransfer.suites.cell_process import Outcome
from siamtransfer.suites.progress import SuiteProgress


@pytest.mark.parametrize(
    ("task", "metrics", "said"),
    [
        (
            "diagnose",
            {"std/backbone": 0.7, "kmeans_accuracy/backbone": 39.3},
            "kmeans_accuracy/backbone 39.3",
        ),
        ("copies", {"copies/own/number": 2.0}, "copies/own/number 2"),
    ],
)
def test_the_number_of_the_board_is_said(
    task: str, metrics: dict[str, float], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record: dict[str, Any] = {"task": task, "metrics": metrics, "protocol": {}, "provenance": {}}
    (tmp_path / "cell.json").write_text(json.dumps(record))
    cell = cast(
        Cell, SimpleNamespace(id="a/cell", task=SimpleNamespace(name=task), record=tmp_path / "cell.json")
    )
    progress = SuiteProgress([cell], 1)
    progress.begin(cell)
    progress.end(cell, Outcome(0, ""), 3.0)
    assert f"a/cell: 3 s, {said}\n" in capsys.readouterr().err
