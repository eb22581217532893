"""The result of a measurement: its record, its files, its table."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from siamtransfer.records.predictions import Predictions, read_record
from siamtransfer.records.record import record
from siamtransfer.records.result import Result
from siamtransfer.utils.errors import UserError

PREDICTIONS = Predictions(np.array([0, 1, 2]), {"k=20/T=0.07": np.array([0, 1, 1])})
RESULT = Result("knn", {"knn/k=20/T=0.07/top1": 200 / 3}, {"k": [20]}, {"weights_digest": "abc"}, PREDICTIONS)


def test_its_record_is_that_of_the_program() -> None:
    expected = record("knn", {"knn/k=20/T=0.07/top1": 200 / 3}, {"k": [20]}, weights_digest="abc")
    ours = RESULT.record()
    for document in (ours, expected):
        del document["provenance"]["time"]
    assert ours == expected


def test_it_is_saved_as_by_the_option_record(tmp_path: Path) -> None:
    RESULT.save(tmp_path / "a.json")
    saved = read_record(tmp_path / "a.json")
    assert saved.record["metrics"] == RESULT.metrics
    assert (saved.predictions.settings["k=20/T=0.07"] == [0, 1, 1]).all()
    with pytest.raises(UserError, match=r"a\.json exists"):
        RESULT.save(tmp_path / "a.json")
    with pytest.raises(UserError, match=r"must end in \.json"):
        RESULT.save(tmp_path / "a.txt")
    Result("diagnose", {"rankme": 3.5}).save(tmp_path / "b.json")
    assert json.loads((tmp_path / "b.json").read_text())["metrics"] == {"rankme": 3.5}
    assert not (tmp_path / "b.npz").exists()


def test_further_results_lie_beside_it_and_all_are_written_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = replace(RESULT, beside={"noise": replace(RESULT, metrics={"noise": 1.0}), "b": Result("knn", {})})
    whole.save(tmp_path / "a.v1.json")
    assert read_record(tmp_path / "a.v1.noise.json").record["metrics"] == {"noise": 1.0}
    files = ["a.v1.b.json", "a.v1.json", "a.v1.noise.json", "a.v1.noise.npz", "a.v1.npz"]
    assert sorted(path.name for path in tmp_path.iterdir()) == files
    (tmp_path / "a.v1.json").unlink()
    (tmp_path / "a.v1.npz").unlink()
    with pytest.raises(UserError, match=r"a\.v1\.noise\.json exists"):
        whole.save(tmp_path / "a.v1.json")
    calls: list[object] = []

    def full_at_the_second(*words: object, **arrays: object) -> None:
        calls.append(words)
        if len(calls) == 2:
            raise OSError(28, os.strerror(28))

    monkeypatch.setattr(np, "savez_compressed", full_at_the_second)
    with pytest.raises(UserError, match="No space left"):
        whole.save(tmp_path / "new" / "c.json")
    assert list((tmp_path / "new").iterdir()) == []


def test_its_table() -> None:
    assert str(RESULT) == "knn\n  knn/k=20/T=0.07/top1     66.67"
    two = Result("diagnose", {"rankme": 3.5, "uniformity": -1.25})
    assert str(two) == "diagnose\n  rankme           3.5\n  uniformity     -1.25"
    assert str(Result("knn", {})) == "knn"
