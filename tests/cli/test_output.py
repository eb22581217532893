"""What stdout shows: a table on a terminal, one line of JSON everywhere else, and what forces either."""

from __future__ import annotations

import json
import os
import pty
import re
import sys
from collections.abc import Callable
from typing import Any

import pytest

from siamtransfer.cli import Command, run
from siamtransfer.cli.output import MOST_ROWS, print_record, table_rows, wants_json
from siamtransfer.evaluation.knn.config import KnnConfig
from siamtransfer.utils.errors import UserError

RECORD: dict[str, Any] = {
    "task": "knn",
    "metrics": {
        "knn/k=20/T=0.07/top1": 55.125,
        "knn/k=20/T=0.07/ci95_low": 50.0,
        "knn/k=20/T=0.07/ci95_high": 60.254,
        "knn/top1": 55.125,
        "linear/epoch=1/top1": 3.0,
        "fewshot/k=3/C=1/top1/mean": 40.0,
        "fewshot/k=3/C=1/top1/ci95": 1.5,
        "images": 1200.0,
        "health/std": 0.98765432,
        "mine": None,
    },
    "protocol": {
        "train": "my[bold]set[/bold]",
        "classes": ["a"] * 50,
        "transform": {"crop": 224, "resize": None},
    },
    "provenance": {"weights_digest": "0" * 64},
}


def on_a_terminal(body: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """The status of a program that `run` ends, and what its terminal shows."""
    master, slave = pty.openpty()
    monkeypatch.setenv("TERM", "dumb")
    with os.fdopen(slave, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        with pytest.raises(SystemExit) as ended:
            run(body)  # type: ignore[arg-type]
        terminal.flush()
        shown = os.read(master, 1 << 16).decode()
    os.close(master)
    assert isinstance(ended.value.code, int)
    return ended.value.code, shown.replace("\r\n", "\n")


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIAMTRANSFER_OUTPUT", raising=False)
    monkeypatch.setattr(sys, "argv", ["siamtransfer", "knn"])


def test_a_terminal_shows_a_table_and_no_json(monkeypatch: pytest.MonkeyPatch):
    status, shown = on_a_terminal(lambda: RECORD, monkeypatch)
    assert status == 0
    (row,) = [line for line in shown.splitlines() if line.startswith("knn/k=20")]
    assert re.search(r"top1 +55\.12 % +50\.00 to 60\.25 +classified right by", row)
    assert "my[bold]set[/bold]" in shown
    assert "crop 224" in shown
    assert "weights_digest" not in shown and '{"task"' not in shown
    assert "--json" in shown.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "variable", "is_json"),
    [(["--json"], "", True), ([], "json", True), (["--no-json"], "json", False), ([], "table", False)],
)
def test_flag_and_variable_choose_on_a_terminal(
    words: list[str], variable: str, is_json: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "argv", ["siamtransfer", "knn", *words])
    monkeypatch.setenv("SIAMTRANSFER_OUTPUT", variable)
    _, shown = on_a_terminal(lambda: RECORD, monkeypatch)
    assert (shown.startswith("{") and json.loads(shown) == RECORD) == is_json


@pytest.mark.parametrize(("words", "variable"), [(["--no-json"], ""), ([], "table")])
def test_flag_and_variable_choose_in_a_pipe(
    words: list[str], variable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert wants_json([])
    monkeypatch.setenv("SIAMTRANSFER_OUTPUT", variable)
    assert not wants_json(words)
    print_record(RECORD, as_json=wants_json(words))
    assert "classified right" in capsys.readouterr().out


def test_a_variable_that_means_nothing_is_refused_before_any_work(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SIAMTRANSFER_OUTPUT", "yaml")
    with pytest.raises(UserError, match="SIAMTRANSFER_OUTPUT is 'yaml', but must be json or table"):
        wants_json([])
    worked = []
    with pytest.raises(SystemExit) as ended:
        run(lambda: worked.append(1))  # type: ignore[arg-type, func-returns-value]
    assert (ended.value.code, worked) == (2, [])


def test_the_flags_are_no_options_of_a_program_and_stand_in_its_help(capsys: pytest.CaptureFixture[str]):
    command = Command("knn", KnnConfig, lambda config: None, "doc")
    assert command.parse(["c.pth", "--json", "--k", "5", "--no-json"]).k == [5]
    for flag in ("--help", "--help-all"):
        with pytest.raises(SystemExit):
            command.parse([flag])
        assert "--json" in capsys.readouterr().out


def test_intervals_stand_beside_their_number_and_repeated_numbers_are_left_out():
    rows = {row[0]: row[1:] for row in table_rows(RECORD["metrics"])}
    assert list(rows) == [
        "knn/k=20/T=0.07/top1", "fewshot/k=3/C=1/top1/mean", "images", "health/std", "mine"
    ]  # fmt: skip
    assert rows["fewshot/k=3/C=1/top1/mean"][:2] == ("40.00 %", "± 1.50")
    assert rows["images"][0] == "1200"
    assert rows["health/std"][0] == "0.9877"
    assert rows["mine"] == ("–", "", "")


def test_a_long_table_is_cut_and_says_so(capsys: pytest.CaptureFixture[str]):
    print_record({"task": "x", "metrics": {f"n{n}": float(n) for n in range(MOST_ROWS + 7)}}, as_json=False)
    shown = capsys.readouterr().out
    assert "and 7 more numbers" in shown
    assert "interval" not in shown


def test_a_record_without_numbers_is_json(capsys: pytest.CaptureFixture[str]):
    print_record({"task": "x"}, as_json=False)
    assert json.loads(capsys.readouterr().out) == {"task": "x"}
