"""Faults 5, 6 and 9: a run that was killed or stopped goes on as if nothing had happened, to the last bit."""

from __future__ import annotations

import functools
import shutil
import signal
import time
from pathlib import Path

import pytest
from support.small_runs import (
    STEPS,
    TINY,
    assert_same_run,
    before_step,
    complete,
    images_of,
    launch,
    newest,
    rows,
    steps_kept,
    stop_at,
)
from support.thorough import more

from siamtransfer.programs.pretrain import main
from siamtransfer.utils.errors import UserError


@pytest.fixture(scope="module")
def options(shapes_folder: Path) -> list[str]:
    """Images that are decoded from files, and kNN after every epoch."""
    return [*images_of(shapes_folder), "--monitor.knn_every=1", "--monitor.knn_k=5"]


@pytest.fixture(scope="module")
def undisturbed(options: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    complete(folder, *options)
    return folder


def test_the_undisturbed_run_did_something_worth_comparing(undisturbed: Path) -> None:
    logged = rows(undisturbed)
    assert [row["step"] for row in logged if "loss" in row] == list(range(1, STEPS + 1))
    assert [row["step"] for row in logged if "knn/k=5/T=0.07/top1" in row] == [5, 10, 15]
    assert [row["step"] for row in logged if "health/std" in row] == list(range(2, STEPS, 2))
    assert len({row["loss"] for row in logged if "loss" in row}) == STEPS
    state = newest(undisturbed)
    assert any(momentum["momentum_buffer"].any() for momentum in state["optimizer"]["state"].values())
    assert state["model"]["backbone.bn1.running_mean"].any()


@pytest.mark.parametrize("step", [0, more(3), 4, more(9), 14])  # before any save, after one, far from one
def test_fault_05_killed_at_a_step(step: int, options: list[str], undisturbed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert launch(folder, *options, fault=stop_at(step, signal.SIGKILL)).wait() == -signal.SIGKILL
    assert steps_kept(folder) == [saved for saved in (4, 5, 8, 10, 12) if saved <= step][-2:]  # 5, 10: kNN
    complete(folder, *options, "--resume")
    assert_same_run(folder, undisturbed)


def test_fault_05_killed_again_and_again(options: list[str], undisturbed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for step in (6, 6, 11, 13):
        fault = stop_at(step, signal.SIGKILL)
        assert launch(folder, *options, "--resume", fault=fault).wait() == -signal.SIGKILL
    complete(folder, *options, "--resume")
    assert_same_run(folder, undisturbed)


def test_fault_05_killed_from_outside(options: list[str], undisturbed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = launch(
        folder, *options, fault=functools.partial(before_step, 12, functools.partial(time.sleep, 100))
    )
    while f"[6/{STEPS}]" not in run.said and run.process.is_alive():
        time.sleep(0.01)
    run.process.kill()
    assert run.wait() == -signal.SIGKILL
    assert f"[6/{STEPS}]" in run.said
    done = complete(folder, *options, "--resume")
    assert done.out.read_text().count("\n") == 1, "stdout is one JSON document"
    assert_same_run(folder, undisturbed)


@pytest.mark.parametrize(
    ("step", "workers"),
    [  # first, second, mid, last of an epoch, first of the next
        (0, 2),
        (4, 2),
        (5, 0),
        (7, 0),
        *(more(0, 0), more(1, 0), more(1, 2), more(4, 0), more(5, 2), more(7, 2)),
    ],
)
def test_fault_06_stopped_at_a_step(
    step: int, workers: int, options: list[str], undisturbed: Path, tmp_path: Path
) -> None:
    folder, options = tmp_path / "run", [*options, "--checkpoint.every_steps=0"]
    fault = stop_at(step)
    assert launch(folder, *options, f"--data.workers={workers}", fault=fault).wait() == 128 + signal.SIGTERM
    assert steps_kept(folder) == [5] * (step >= 5) + [step + 1]  # before the check by kNN, and on the signal
    complete(folder, *options, f"--data.workers={workers}", "--resume")
    assert_same_run(folder, undisturbed, FREE)


FREE = ("config.run.dir", "config.data.workers", "config.checkpoint.every_steps")


def test_fault_09_resumed_with_other_workers_at_another_place(
    options: list[str], undisturbed: Path, shapes_folder: Path, tmp_path: Path
) -> None:
    folder, elsewhere = tmp_path / "run", tmp_path / "moved"
    assert launch(folder, *options, "--data.workers=2", fault=stop_at(6)).wait() == 128 + signal.SIGTERM
    elsewhere.symlink_to(shapes_folder)
    complete(folder, *options, f"--data.root={elsewhere}", "--data.workers=1", "--resume")
    assert_same_run(folder, undisturbed, (*FREE, "config.data.root"))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the embedded scenes with one checkpoint, at step 2."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    assert launch(folder, fault=stop_at(1)).wait() == 128 + signal.SIGTERM
    return folder


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (["--optim.batch_size=20"], ["optim.batch_size 8 -> 20"]),
        (["--backbone.name=resnet34"], ["backbone.name 'resnet18' -> 'resnet34'"]),
        (["--data.count=50", "--run.seed=1"], ["data.count 40 -> 50", "run.seed 0 -> 1"]),
        (["--data.size=24", "--data.count=null"], ["data.size 32 -> 24", "data.count 40 -> None"]),
    ],
)
def test_fault_09_resumed_with_another_configuration(
    changes: list[str], named: list[str], stopped: Path
) -> None:
    before = (stopped / "metrics.jsonl").read_bytes(), (stopped / "config.json").read_bytes()
    with pytest.raises(UserError) as caught:
        main([*TINY, f"--run.dir={stopped}", *changes, "--resume"])
    assert all(words in str(caught.value) for words in named)
    assert str(caught.value).count("->") == len([c for c in changes if not c.startswith("--run.dir")])
    assert ((stopped / "metrics.jsonl").read_bytes(), (stopped / "config.json").read_bytes()) == before


def test_a_run_goes_on_in_another_precision_and_says_so(stopped: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(stopped, folder, symlinks=True)
    run = launch(folder, "--hardware.precision=bfloat16", "--resume")
    run.wait()  # in bfloat16 so small a network may or may not stay finite; that is not the matter here
    assert "saved in float32 and the training goes on in bfloat16" in run.said
    assert f"steps 2 to {STEPS}" in run.said


def test_a_second_run_does_not_begin_over_the_first(stopped: Path) -> None:
    with pytest.raises(UserError, match="--resume"):
        main([*TINY, f"--run.dir={stopped}"])
    assert steps_kept(stopped) == [2]


def test_resuming_nothing_begins_and_resuming_the_end_trains_no_more(
    undisturbed: Path, options: list[str], tmp_path: Path
) -> None:
    run = launch(tmp_path / "run", *options, "--optim.epochs=1", "--resume")
    assert run.wait() == 0
    assert "starting from the beginning" in run.said
    again = complete(tmp_path / "run", *options, "--optim.epochs=1", "--resume")
    assert "[5/5]" in run.said
    assert "[5/5]" not in again.said
    assert again.record["metrics"] == run.record["metrics"]
    assert again.record["provenance"]["checkpoint"] == str(tmp_path / "run" / "checkpoint.pth")
