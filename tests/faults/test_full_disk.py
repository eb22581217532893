"""Full disks and folders that vanish: a sentence, a last checkpoint where one fits, and nothing lost."""

from __future__ import annotations

import errno
import functools
import os
import re
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_runs import (
    STEPS,
    assert_same_run,
    before_step,
    complete,
    launch,
    newest,
    rows,
    steps_kept,
)
from support.thorough import more

from siamtransfer.checkpoints.read_backbone import read_backbone

FREE = ("config.run.dir", "config.log.tensorboard")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    complete(folder)
    return folder


def no_room(times: int) -> None:
    """From now on the disk takes half a row and refuses the rest, so many times."""
    from siamtransfer.training import journal_file

    write, left = journal_file.write_all, times

    def write_all(file: int, text: bytes) -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            os.write(file, text[: len(text) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(file, text)

    journal_file.write_all = write_all


def test_a_journal_without_room_ends_the_run_after_a_save_and_no_row_is_lost(
    undisturbed: Path, tmp_path: Path
) -> None:
    run = launch(tmp_path / "run", fault=functools.partial(before_step, 5, functools.partial(no_room, 10**6)))
    assert run.wait() == 2
    last = run.said.splitlines()[-1]
    why = r"No space left on device \(\d+ MiB free\); free some space or choose another folder"
    assert re.match(rf"error: cannot write {run.folder}/metrics\.jsonl: {why}; ", last), last
    assert last.endswith(f"the state of step 7 is whole: go on with --resume {run.folder}")
    assert "Traceback" not in run.said
    assert steps_kept(run.folder) == [4, 7]
    assert [row["step"] for row in rows(run.folder)][-1] == 5
    assert newest(run.folder)["unwritten_rows"]["rows"][0]["step"] == 6
    read = read_backbone(str(run.folder / "checkpoint.pth"))
    assert torch.equal(read.state["conv1.weight"], newest(run.folder)["model"]["backbone.conv1.weight"]), (
        "a state with rows in it is read as any"
    )
    complete(run.folder, "--resume")
    assert "unwritten_rows" not in newest(run.folder)
    assert_same_run(run.folder, undisturbed)


def test_a_disk_that_is_full_for_a_moment_ends_nothing(undisturbed: Path, tmp_path: Path) -> None:
    run = complete(tmp_path / "run", fault=functools.partial(before_step, 5, functools.partial(no_room, 1)))
    assert "No space" not in run.said
    assert_same_run(run.folder, undisturbed)


def no_room_for_events() -> None:
    from siamtransfer.trackers import event_file

    def write_all(file: int, content: Any) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    event_file.write_all = write_all


def test_tensorboard_without_room_ends_the_run_after_a_save(undisturbed: Path, tmp_path: Path) -> None:
    fault = functools.partial(before_step, 5, no_room_for_events)
    run = launch(tmp_path / "run", "--log.tensorboard", fault=fault)
    assert run.wait() == 2
    last = run.said.splitlines()[-1]
    assert re.match(rf"error: cannot write {run.folder}/tensorboard/events\S+: Disk quota exceeded", last), (
        last
    )
    assert last.endswith(f"the state of step 7 is whole: go on with --resume {run.folder}")
    assert steps_kept(run.folder) == [4, 7]
    assert len(list((run.folder / "tensorboard").iterdir())) == 1
    complete(run.folder, "--resume", "--log.tensorboard")
    assert len(list((run.folder / "tensorboard").iterdir())) == 1, "a run has one file of events"
    assert_same_run(run.folder, undisturbed, FREE)


def small_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**14, 2**14))


def test_a_disk_without_any_room_names_the_last_whole_state(undisturbed: Path, tmp_path: Path) -> None:
    run = launch(tmp_path / "run", fault=functools.partial(before_step, 6, small_files))
    assert run.wait() == 2
    last = run.said.splitlines()[-1]
    assert re.match(
        rf"error: cannot write {run.folder}/checkpoints/step-0000008\S*: File too large \(", last
    ), last
    assert last.endswith(f"the state of step 4 is whole: go on with --resume {run.folder}")
    assert "Traceback" not in run.said
    assert steps_kept(run.folder) == [4]
    assert [path.name for path in run.folder.rglob(".*")] == []
    complete(run.folder, "--resume")
    assert_same_run(run.folder, undisturbed)


# Folders that vanish.


def remove(folder: Path) -> None:
    shutil.rmtree(folder)


def rename(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


def replace(folder: Path) -> None:
    """Another run has taken the name: it has its own lock and a state of step 4."""
    other = folder.with_name("elsewhere")
    folder.rename(other)
    shutil.copytree(other, folder)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (remove, "it was removed while it was in use"),
        (rename, "it was renamed while it was in use, and is {}/elsewhere now"),
        more(replace, "it was renamed while it was in use, and is {}/elsewhere now"),
    ],
)
def test_a_run_whose_folder_vanishes_ends_and_writes_into_no_other(
    change: Callable[[Path], None], what: str, undisturbed: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    run = launch(folder, fault=functools.partial(before_step, 6, functools.partial(change, folder)))
    assert run.wait() == 2
    last = run.said.splitlines()[-1]
    assert last.startswith(
        f"error: the run folder {folder} is no longer the one that this program has locked: "
    ), last
    assert what.format(tmp_path) in last
    assert "Traceback" not in run.said and "done:" not in run.said
    if change is replace:
        assert steps_kept(folder) == [4]
    else:
        assert not folder.exists()
    if change is not remove:
        complete(tmp_path / "elsewhere", "--resume")
        assert_same_run(tmp_path / "elsewhere", undisturbed)


# Refused runs.


@pytest.mark.parametrize(
    "mistake",
    [
        "--data.count=3",  # less than a batch
        more("--backbone.weights=nowhere.pth"),
        more("--adapt.retention=nowhere/at/all"),
        more("--monitor.gradients_every=1"),
    ],
)
def test_a_refused_run_leaves_nothing_behind(mistake: str, tmp_path: Path) -> None:
    place = tmp_path / "place"
    run = launch(
        tmp_path / "logs" / "run", f"--run.dir={place / 'new' / 'run'}", "--log.tensorboard", mistake
    )
    assert run.wait() == 2, run.said
    assert "error: " in run.said and "Traceback" not in run.said
    assert not place.exists()


# A real disk that is too small.


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a disk in memory with the given options, or changes those of the mounted one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = False

    def mount(options: str) -> Path:
        nonlocal mounted
        words = (
            ["mount", "-o", f"remount,{options}"]
            if mounted
            else ["mount", "-t", "tmpfs", "-o", options, "none"]
        )
        done = subprocess.run([*words, str(place)], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
        mounted = True
        return place

    yield mount
    if mounted:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("size=800k", "No space left on device ("),
        more("size=8k", "No space left on device"),
        more("size=12k", "No space left on device"),
        more("size=300k", "No space left on device"),
        more("size=1200k", "No space left on device"),
        ("nr_inodes=9", "the disk takes no more files, whatever their size"),
        *(
            more(f"nr_inodes={count}", "the disk takes no more files, whatever their size")
            for count in (2, 4, 6)
        ),
    ],
)
def test_a_run_on_a_real_disk_that_is_too_small_goes_on_when_there_is_room(
    options: str, why: str, small_disk: Callable[[str], Path], undisturbed: Path
) -> None:
    disk = small_disk(options if "size" in options else f"size=64m,{options}")
    logs = disk.parent / "logs" / "run"
    run = launch(logs, f"--run.dir={disk / 'run'}")
    assert run.wait() == 2
    assert "Traceback" not in run.said
    assert why in run.said, run.said
    assert run.said.splitlines()[-1].startswith("error: cannot write"), run.said
    small_disk("size=64m,nr_inodes=1000")
    complete(logs, f"--run.dir={disk / 'run'}", "--resume")
    assert_same_run(disk / "run", undisturbed)
    assert STEPS in steps_kept(disk / "run")
