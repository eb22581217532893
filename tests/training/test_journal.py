"""The journal: every row once, whatever happened between, and viewers that see the same."""

from __future__ import annotations

import json
import math
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from siamtransfer.training.journal import Journal
from siamtransfer.training.journal_rows import read_rows
from siamtransfer.utils.errors import UserError


def steps(folder: Path) -> list[int]:
    return [row["step"] for row in read_rows(folder / "metrics.jsonl")]


def written(folder: Path, count: int, *, start: int = 0) -> Journal:
    journal = Journal(folder, start=start, tensorboard=False)
    for step in range(start + 1, count + 1):
        journal.write(step, {"loss": step / 10})
    return journal


def test_a_row_is_in_the_file_when_write_returns(tmp_path: Path) -> None:
    journal = Journal(tmp_path, tensorboard=False)
    journal.write(3, {"loss": 0.1, "words": "ü", "odd": math.nan})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 3, "loss": 0.1, "words": "ü", "odd": null}\n'


def test_numbers_come_back_to_the_bit(tmp_path: Path) -> None:
    values = [0.1 + 0.2, 1e-300, -math.pi, 1e22]
    journal = Journal(tmp_path, tensorboard=False)
    for step, value in enumerate(values):
        journal.write(step, {"x": value})
    assert [row["x"] for row in read_rows(tmp_path / "metrics.jsonl")] == values


@pytest.mark.parametrize("torn", ["", '{"step": 8, "lo', "\x00\x00\x00", "}"])
def test_reopening_drops_what_came_after_the_checkpoint(torn: str, tmp_path: Path) -> None:
    written(tmp_path, 7).close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(torn)
    again = written(tmp_path, 6, start=5)
    again.close()
    assert steps(tmp_path) == [1, 2, 3, 4, 5, 6]
    assert again.latest("loss") == (6, 0.6)


def test_a_new_run_begins_an_empty_journal(tmp_path: Path) -> None:
    written(tmp_path, 3).close()
    written(tmp_path, 1).close()
    assert steps(tmp_path) == [1]


def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\nnonsense\n{"step": 3}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl line 2 is damaged"):
        Journal(tmp_path, start=3, tensorboard=False)


@pytest.mark.parametrize("line", ["7", "[]", '{"loss": 1}'])
def test_a_last_line_that_is_no_row_is_dropped(line: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n' + line)
    assert read_rows(tmp_path / "metrics.jsonl") == [{"step": 1}]


def test_has_and_series_leave_out_what_is_not_there(tmp_path: Path) -> None:
    journal = Journal(tmp_path, tensorboard=False)
    journal.write(1, {"a": 1.0})
    journal.write(1, {"b": 2.0})
    journal.write(2, {"a": None})
    assert journal.has(2, "a")
    assert not journal.has(2, "b")
    assert not journal.has(3, "a")
    assert journal.latest("a") == (1, 1.0)
    assert journal.latest("c") is None
    assert read_rows(tmp_path / "no such file") == []


def test_other_ranks_remember_but_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    journal = Journal(None)
    journal.write(1, {"loss": 1.0})
    journal.close()
    assert journal.latest("loss") == (1, 1.0)
    assert list(tmp_path.iterdir()) == []


def read_events(folder: Path) -> list[tuple[int, str, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return sorted(
        (e.step, tag, e.value) for tag in accumulator.Tags()["scalars"] for e in accumulator.Scalars(tag)
    )


def test_tensorboard_sees_the_same_rows_also_after_a_resumption(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for step in range(1, 6):
        journal.write(step, {"loss": step / 4, "words": "left out"})
    journal.close()
    again = Journal(tmp_path, start=3)
    again.write(4, {"loss": 40.0})
    again.close()
    assert read_events(tmp_path / "tensorboard") == [
        (1, "loss", 0.25),
        (2, "loss", 0.5),
        (3, "loss", 0.75),
        (4, "loss", 40.0),
    ]


@pytest.fixture
def wandb_calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a stand-in for the package wandb was called with: the options of init, (step, numbers), "end"."""
    calls: list[Any] = []
    fake = types.ModuleType("wandb")
    run = types.SimpleNamespace(
        log=lambda numbers, step: calls.append((step, numbers)), finish=lambda: calls.append("end")
    )
    fake.init = lambda **options: calls.append(options) or run  # type: ignore[attr-defined,func-returns-value]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return calls


def open_with_wandb(folder: Path, start: int = 0) -> Journal:
    return Journal(folder, start=start, tensorboard=False, wandb=True, config={"lr": 1})


def test_wandb_gets_the_configuration_and_every_row(tmp_path: Path, wandb_calls: list[Any]) -> None:
    journal = open_with_wandb(tmp_path / "my-run")
    journal.write(5, {"loss": 1.0})
    journal.close()
    journal.close()
    options, *rest = wandb_calls
    assert (options["name"], options["resume"], options["config"]) == ("my-run", "allow", {"lr": 1})
    assert options["id"] == (tmp_path / "my-run" / "wandb_id.txt").read_text().strip()
    assert rest == [(5, {"loss": 1.0}), "end"]


def test_a_resumed_run_keeps_its_wandb_id_and_a_folder_of_the_same_name_has_another(
    tmp_path: Path, wandb_calls: list[Any]
) -> None:
    first, second = tmp_path / "a" / "run", tmp_path / "b" / "run"
    for folder, start in ((first, 0), (second, 0), (first, 3)):
        open_with_wandb(folder, start).close()
    ids = [call["id"] for call in wandb_calls if call != "end"]
    assert ids[0] == ids[2] != ids[1]


def test_viewers_get_plain_aliases_too_and_the_file_the_names_alone(
    tmp_path: Path, wandb_calls: list[Any]
) -> None:
    journal = open_with_wandb(tmp_path)
    journal.write(5, {"knn/k=20/T=0.07/top1": 80.0})
    assert wandb_calls[1] == (5, {"knn/k=20/T=0.07/top1": 80.0, "knn/top1": 80.0})
    assert read_rows(tmp_path / "metrics.jsonl") == [{"step": 5, "knn/k=20/T=0.07/top1": 80.0}]


def test_wandb_missing_is_told_with_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"pip install 'siamtransfer\[wandb\]'"):
        Journal(tmp_path, tensorboard=False, wandb=True)


def test_the_file_is_json_lines(tmp_path: Path) -> None:
    written(tmp_path, 3).close()
    lines = (tmp_path / "metrics.jsonl").read_text().split("\n")
    assert lines.pop() == ""
    assert [json.loads(line) for line in lines] == [{"step": step, "loss": step / 10} for step in (1, 2, 3)]
