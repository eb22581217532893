"""Whole programs: a signal before the steps, a closed terminal, a lost worker, a killed parent."""

from __future__ import annotations

import functools
import os
import pty
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from support.pictures import write_parts
from support.signalled import Program, descendants, kill_all, launch_program, survivors, unfinished_files
from support.small_runs import TINY, complete, images_of, rows, send, steps_kept
from support.thorough import more

from siamtransfer.training.stop_marker import VARIABLE

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

NETWORK = "random:resnet18:width=16:stem=small"
EVALUATED = ["--data.workers=2", "--cache=none", "--device=cpu"]
ENDLESS = ["pretrain", *TINY, "--data.workers=2", "--optim.epochs=1000"]


def signal_in_listing(number: signal.Signals) -> None:
    from siamtransfer.pretraining import images

    original = images.open_images

    def open_images(*arguments: object, **named: object) -> object:
        send(number)
        time.sleep(20)
        return original(*arguments, **named)  # type: ignore[arg-type]

    images.open_images = open_images  # type: ignore[assignment]


def test_a_signal_before_the_steps_ends_the_run_at_once(tmp_path: Path) -> None:
    marker = tmp_path / "stopped"
    program = launch_program(
        ["pretrain", *TINY, f"--run.dir={tmp_path / 'run'}"],
        tmp_path / "said",
        fault=functools.partial(signal_in_listing, signal.SIGTERM),
        variables={VARIABLE: str(marker)},
    )
    assert program.ended(15) == 143
    said = "stopped on a signal before the first step; the same command begins again"
    assert program.said.splitlines()[-1] == said
    assert marker.read_text() == "143\n"  # so a Slurm job is queued again
    assert steps_kept(tmp_path / "run") == []
    complete(tmp_path / "run")


def read_slowly() -> None:
    from siamtransfer.data.folders import FileImages

    original = FileImages.image

    def image(images: FileImages, index: int) -> np.ndarray:
        time.sleep(0.2)
        return original(images, index)

    FileImages.image = image  # type: ignore[method-assign]


@pytest.mark.parametrize(
    "words",
    [
        [*ENDLESS, "--run.dir=OUT"],
        more(["knn", NETWORK, *EVALUATED, "--k=3"]),
        more(["linear", NETWORK, *EVALUATED, "--protocol=moco", "--epochs=1000", "--batch_size=8"]),
        more(["semisup", NETWORK, *EVALUATED, "--protocol=ours", "--percent=100", "--run=OUT"]),
    ],
    ids=lambda words: words[0],
)
def test_a_worker_that_is_killed_is_a_sentence(words: list[str], shapes_folder: Path, tmp_path: Path) -> None:
    words = [word.replace("OUT", str(tmp_path / "run")) for word in words]
    fault = None if words[0] == "pretrain" else read_slowly
    write_parts(parts := tmp_path / "parts")
    images = images_of(shapes_folder if fault is None else parts)
    program = launch_program([*words, *images], tmp_path / "said", fault=fault)
    assert program.wait_for(lambda: len(descendants(program.pid)) == 2)
    if fault is None:
        program.says("[2/")
    below = descendants(program.pid)
    os.kill(max(below)[0], signal.SIGKILL)
    try:
        assert program.ended(10) == 2
        assert program.said.splitlines()[-1].startswith("error: a process that reads images was ended")
        assert "lower --data.workers, or give the job more memory" in program.said
        assert "Traceback" not in program.said
        assert survivors(below, 1) == set()
        assert unfinished_files(tmp_path) == []
    finally:
        kill_all(below)


def running(words: list[str], images: Path, folder: Path) -> Program:
    """The program, as soon as it has two workers that have begun."""
    program = launch_program([*words, *images_of(images), f"--run.dir={folder / 'run'}"], folder / "said")
    assert program.wait_for(lambda: len(descendants(program.pid)) == 2)
    program.says("[2/")
    return program


def test_a_closed_terminal_saves_the_run(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    words = [*ENDLESS, "--data.workers=0", f"--run.dir={tmp_path / 'run'}"]
    program = launch_program(words, tmp_path / "said", terminal=os.ttyname(theirs))
    os.close(theirs)
    assert program.wait_for(lambda: (tmp_path / "run" / "metrics.jsonl").exists())
    assert program.wait_for(lambda: (tmp_path / "run" / "metrics.jsonl").read_bytes() != b"")
    os.close(ours)  # writing to the terminal fails from now on
    os.kill(program.pid, signal.SIGHUP)  # as the kernel does, or the shell
    assert program.ended(20) == 129
    (kept,) = steps_kept(tmp_path / "run")[-1:]
    assert kept == max(row["step"] for row in rows(tmp_path / "run"))


@pytest.mark.parametrize("number", [signal.SIGKILL, more(signal.SIGQUIT), more(signal.SIGTERM)])
def test_no_worker_outlives_a_run(number: signal.Signals, shapes_folder: Path, tmp_path: Path) -> None:
    program = running(ENDLESS, shapes_folder, tmp_path)
    below = descendants(program.pid)
    os.kill(program.pid, number)
    try:
        assert program.ended(10) == (143 if number == signal.SIGTERM else -number)
        assert survivors(below, 1) == set()
    finally:
        kill_all(below)
