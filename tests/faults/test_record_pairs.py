"""A record and its predictions are there together, whenever the program that writes them is killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from support.small_runs import context

from siamtransfer.records.predictions import Predictions, publish, read_record
from siamtransfer.records.record import record
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import refuse_record


def write(out: Path, kill_at: int | None = None) -> None:
    """Publishes a record; the process is killed before the rename of that number, counted from 0."""
    rename, renamed = Path.replace, 0

    def replace(self: Path, target: Path) -> Path:
        nonlocal renamed
        if renamed == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        renamed += 1
        return rename(self, target)

    if kill_at is not None:
        Path.replace = replace  # type: ignore[method-assign,assignment]
    labels = np.arange(100)
    document = record("knn", {"knn/k=20/T=0.07/top1": 100.0}, {"k": [20]})
    publish(document, Predictions(labels, {"k=20/T=0.07": labels}), str(out))


@pytest.mark.parametrize(
    ("kill_at", "left", "refused"),
    [
        (0, [], None),
        (
            1,
            ["out.npz"],
            r"out\.npz exists without out\.json: features, or what a killed program has left; choose",
        ),
    ],
)
def test_a_kill_between_the_files_leaves_no_record_without_predictions(
    kill_at: int, left: list[str], refused: str | None, tmp_path: Path
) -> None:
    process = context().Process(target=write, args=(tmp_path / "out.json", kill_at))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    names = sorted(path.name for path in tmp_path.iterdir())
    assert [name for name in names if not name.startswith(".")] == left
    assert len(names) - len(left) == 2 - kill_at, "what was not renamed is hidden"
    if refused is not None:
        with pytest.raises(UserError, match=refused):
            refuse_record(str(tmp_path / "out.json"))
        (tmp_path / "out.npz").unlink()
    refuse_record(str(tmp_path / "out.json"))
    write(tmp_path / "out.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "out.npz"], (
        "nothing hidden is left"
    )
    assert read_record(tmp_path / "out.json").record["metrics"] == {"knn/k=20/T=0.07/top1": 100.0}
