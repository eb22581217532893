"""Fault 15: a rank that dies under torchrun restarts all of them, and a run may go on with fewer ranks."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.small_runs import (
    ROOT,
    TINY,
    assert_same_run,
    before_step,
    complete,
    differences,
    launch,
    launch_ranks,
    newest,
    rows,
    steps_kept,
    stop_at,
)

from siamtransfer.pretraining import images, run

SHORT = ["--optim.epochs=2"]
GENTLE = ["--optim.lr=0.02"]  # rounding grows with the rate, and ranks add in another order than one process


def note_samples(path: Path, then: Callable[[], None] | None = None) -> None:
    """Appends the sample indices of every step that this process computes to `path`."""
    original = images.pair_views

    def pair_views(batch: Any, *arguments: Any, **named: Any) -> Any:
        with path.open("a") as file:
            file.write(json.dumps(batch.index.tolist()) + "\n")
        return original(batch, *arguments, **named)

    images.pair_views = pair_views
    if then is not None:
        then()


def samples(path: Path) -> list[set[int]]:
    return [set(json.loads(line)) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def one_rank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one") / "run"
    complete(folder, *GENTLE, fault=functools.partial(note_samples, folder.parent / "samples"))
    return folder


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two") / "run"
    ranks = launch_ranks(folder, *SHORT)
    assert [rank.wait() for rank in ranks] == [0, 0], [rank.said for rank in ranks]
    return folder


@pytest.mark.thorough
def test_fault_15_torchrun_restarts_all_ranks_when_one_dies(two_ranks: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node=2",
        "--max-restarts=1",
        "--standalone",
    ]
    script = [
        str(ROOT / "tests" / "faults" / "dying_rank.py"),
        *TINY,
        *SHORT,
        f"--run.dir={folder}",
        "--resume",
    ]
    done = subprocess.run([*torchrun, *script], cwd=tmp_path, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    assert "steps 0 to 10" in done.stderr
    assert "steps 4 to 10" in done.stderr
    assert done.stdout.count("\n") == 1, "rank 0 alone prints the record"
    assert_same_run(folder, two_ranks)


def test_fault_15_a_run_goes_on_with_fewer_ranks(one_rank: Path, tmp_path: Path) -> None:
    """Stopped after step 7 by a signal to one of two ranks; from there a single rank ends it."""
    folder, notes = tmp_path / "run", [tmp_path / "samples0", tmp_path / "samples1"]
    faults = {
        0: functools.partial(note_samples, notes[0]),
        1: functools.partial(note_samples, notes[1], stop_at(6)),
    }
    ranks = launch_ranks(folder, *GENTLE, faults=faults)
    assert [rank.wait() for rank in ranks] == [143, 143], [rank.said for rank in ranks]
    assert steps_kept(folder) == [4, 7]
    complete(folder, *GENTLE, "--resume", fault=functools.partial(note_samples, tmp_path / "samples"))

    together = [a | b for a, b in zip(samples(notes[0]), samples(notes[1]), strict=True)] + samples(
        tmp_path / "samples"
    )
    assert together == samples(one_rank.parent / "samples")
    assert [set.union(*together[epoch : epoch + 5]) for epoch in (0, 5, 10)] == [set(range(40))] * 3
    ours, theirs = ([row["loss"] for row in rows(run) if "loss" in row] for run in (folder, one_rank))
    assert ours == pytest.approx(theirs, abs=1e-5)
    assert differences(newest(folder)["progress"], newest(one_rank)["progress"]) == []


def test_ranks_that_find_different_checkpoints_are_refused(one_rank: Path, tmp_path: Path) -> None:
    """As on two machines that do not share a disk."""
    fault = functools.partial(before_step, 6, functools.partial(exit, 0))
    launch(tmp_path / "run", fault=fault).wait()
    assert steps_kept(tmp_path / "run") == [4]
    ranks = launch_ranks(
        tmp_path / "run", "--resume", faults={1: functools.partial(look_in, tmp_path / "nothing")}
    )
    assert ranks[1].wait() == 2
    assert "put --run.dir on a disk that all machines share" in ranks[1].said
    assert ranks[0].wait() != 0


def look_in(folder: Path) -> None:
    original = run.Checkpoints

    def checkpoints(_: Path, *more: Any, **options: Any) -> Any:
        return original(folder, *more, **options)

    run.Checkpoints = checkpoints  # type: ignore[assignment,misc]
