"""The program rank: its table, its record, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.boards import SETTING, answers, write, write_knn

from siamtransfer.programs.rank import main
from siamtransfer.records.meanings import meaning_of
from siamtransfer.utils.errors import UserError

RIGHT = answers(1, 0.5, 0.85, 0.84)


@pytest.fixture
def records(tmp_path: Path) -> Path:
    for name, right in zip("abc", RIGHT, strict=True):
        write_knn(tmp_path / f"{name}.json", name, right)
    write(tmp_path / "linear.json", "linear", {"linear/top1": 61.0}, None, "a")
    return tmp_path


def run(caplog: pytest.LogCaptureFixture, *words: object) -> tuple[dict[str, Any], list[str]]:
    caplog.clear()
    with caplog.at_level("INFO", "siamtransfer"):
        made = main([str(word) for word in words])
    assert made is not None
    return made, [row.getMessage() for row in caplog.records]


def test_the_table_and_the_record(records: Path, caplog: pytest.LogCaptureFixture) -> None:
    made, lines = run(caplog, records, "--alpha", 0.05)
    title = f"knn {SETTING.replace('/', ' ')} top1 · made/test"
    assert [line.split() for line in lines[:4]] == [
        ["backbone", "mean", "rank", "groups", "columns"],
        ["b", "1.00", "a", "1"],
        ["c", "2.00", "a", "1"],
        ["a", "3.00", "b", "1"],
    ]
    assert lines[5].split() == ["[1]", "[2]"]
    assert [line.split()[0] for line in lines[6:9]] == ["b", "c", "a"]
    assert lines[8].split()[1:] == [f"{100 * RIGHT[0].mean():.2f}", "b", "61.00", "-"]
    assert lines[7].split()[2:] == ["a", "-"], "c has no linear probe"
    assert lines[9:11] == [f"[1] {title} (%)", "[2] linear top1 · made/test (%)"]
    missing = [line for line in lines if line.startswith("missing: ")]
    assert missing == [
        f"missing: {name}, linear top1 · made/test: siamtransfer linear runs/{name}/checkpoint.pth --record "
        f"{records / f'{name}-linear.json'} --device cpu"
        for name in "bc"
    ]
    assert lines[-1] == (
        "over all columns 2 of 3 pairs are told apart, by 3 tests that together err with a chance of at most "
        "0.05"
    )
    assert made["metrics"] == {
        "rank/mean/b": 1,
        "rank/mean/c": 2,
        "rank/mean/a": 3,
        "rank/tests": 3,
        "rank/told_apart": 2,
        "rank/missing": 2,
    }
    assert all(meaning_of(name) is not None for name in made["metrics"])
    assert made["protocol"]["groups"][title] == {"b": "a", "c": "a", "a": "b"}
    assert len(made["provenance"]["records"]) == 4


def test_options(records: Path, caplog: pytest.LogCaptureFixture) -> None:
    made, lines = run(caplog, records, "--tasks", "knn", "--no-missing", "--index", "--alpha", 1e-60)
    assert made["metrics"]["rank/told_apart"] == 0
    assert not any(line.startswith("missing") or "linear" in line for line in lines)
    assert (records / "index.json").is_file()
    made, _ = run(caplog, records / "a.json", records / "b.json", "--metrics", "all")
    assert made["metrics"]["rank/tests"] == 1


def test_what_is_not_tested_is_said(records: Path, caplog: pytest.LogCaptureFixture) -> None:
    _, lines = run(caplog, records, "--tasks", "linear")
    assert "there is one backbone: nothing to compare it with" in lines[-1]
    write(records / "linear2.json", "linear", {"linear/top1": 62.0}, None, "b")
    _, lines = run(caplog, records, "--tasks", "linear")
    assert "no two backbones have predictions of the same images under one protocol" in lines[-1]
    assert (
        "note: nobody is told apart by numbers from whose computation no predictions are kept: "
        "linear top1 · made/test"
    ) in lines


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "give records or folders of them: siamtransfer rank records/"),
        (["R", "--alpha", "0"], "--alpha must be between 0 and 1, not 0"),
        (["R", "--alpha", "5"], "--alpha must be between 0 and 1, not 5"),
        (["R", "--seed", "-1"], "seed is -1, but must be from 0 to"),
        (["R", "--resamples", "10"], "--resamples must be at least 100"),
        (["R", "--tasks", "knn", "depth"], "there is no record of depth: there are attention, knn, linear"),
        (["R/empty"], "holds no record of a backbone"),
        (["R/none"], "none cannot be read: No such file or directory"),
        (["R/a.npz"], r"a\.npz is not a record, which is one JSON document"),
        (["R/a.json", "--index"], "--index keeps an index in a folder, and no folder is given"),
        (["R/loss.json"], "is a record of pretrain, which measures no backbone: leave it out"),
        (["R/odd.json"], "no record has a number of which one way is better, so there is nothing to rank"),
        (["R", "--metrics", "some"], "some"),
    ],
)
def test_refused(records: Path, words: list[str], sentence: str) -> None:
    (records / "empty").mkdir()
    write(records / "loss.json", "pretrain", {"loss": 1.0}, None, "a")
    write(records / "odd.json", "attention", {"queries": 1.0}, None, "a")
    with pytest.raises(UserError, match=sentence):
        main([str(records) + word[1:] if word[:1] == "R" else word for word in words])
    assert not (records / "index.json").exists()
