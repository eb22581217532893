"""Faults 1 to 4: a save that fails or is killed leaves the old checkpoint, and damaged files are noticed."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import random
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest
import torch
from support.small_runs import (
    assert_same_run,
    before_step,
    complete,
    context,
    differences,
    launch,
    newest,
    send,
    steps_kept,
)

import siamtransfer.checkpoints.training_state
from siamtransfer.checkpoints.declaration import FORMAT, VERSION
from siamtransfer.checkpoints.training_state import Checkpoints
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import atomic_write


def state_of(step: int) -> dict[str, Any]:
    weights = torch.randn(5_000, generator=torch.Generator().manual_seed(step))
    return {"format": FORMAT, "version": VERSION, "model": {"w": weights}, "progress": {"step": step}}


def found(run: Path) -> int:
    """The step that a resumed run would go on from, after a check that its state is what was saved."""
    warnings: list[str] = []
    state = Checkpoints(run).load_newest(warnings.append)
    assert state is not None
    step = state["progress"]["step"]
    assert differences(state, state_of(step)) == []
    return step


def leftovers(run: Path) -> list[Path]:
    return [path for path in run.rglob("*") if path.name.startswith(".")]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A run folder with checkpoints at steps 1 and 2."""
    for step in (1, 2):
        Checkpoints(tmp_path).save(state_of(step), step)
    return tmp_path


@pytest.mark.parametrize("which", ["step-0000003", "checkpoint.pth"])
def test_fault_01_the_rename_fails(which: str, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if Path(target).name.startswith(which):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(UserError, match=which):
        Checkpoints(saved).save(state_of(3), 3)
    monkeypatch.undo()
    assert leftovers(saved) == []
    assert torch.load(saved / "checkpoint.pth", weights_only=True)["progress"]["step"] == 2
    assert found(saved) == (2 if which.startswith("step") else 3)


class Explosive:
    def __reduce__(self) -> tuple[Any, ...]:
        raise RuntimeError("this object cannot be pickled")


def test_fault_02_pickling_fails_half_way(saved: Path) -> None:
    with pytest.raises(RuntimeError, match="cannot be pickled"):
        Checkpoints(saved).save({**state_of(3), "more": Explosive()}, 3)
    assert leftovers(saved) == []
    assert found(saved) == 2


def test_fault_02_the_disk_is_full(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        siamtransfer.checkpoints.training_state,
        "atomic_write",
        functools.partial(disturbed_write, 10_000, full),
    )
    with pytest.raises(UserError, match=r"cannot write .*step-0000003.*No space left.*\d MiB free"):
        Checkpoints(saved).save(state_of(3), 3)
    assert leftovers(saved) == []
    assert found(saved) == 2


def test_fault_02_a_run_whose_disk_is_full_ends_with_an_error(tmp_path: Path) -> None:
    """The kernel refuses to let a file of this process grow beyond 256 KiB, from before step 5 on."""
    run = launch(tmp_path / "run", fault=functools.partial(before_step, 5, small_files))
    assert run.wait() == 2
    assert run.said.splitlines()[-1].startswith(
        f"error: cannot write {tmp_path / 'run'}/checkpoints/step-0000008"
    )
    assert "MiB free" in run.said
    assert "Traceback" not in run.said
    assert steps_kept(run.folder) == [4]
    assert leftovers(run.folder) == []
    assert newest(run.folder)["progress"]["step"] == 4


def small_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**18, 2**18))


def full() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Disturbed:
    """A file that does `action` once `offset` bytes have been written, as a slow disk gives time for."""

    def __init__(self, file: IO[bytes], offset: int, action: Any):
        self.file, self.offset, self.action = file, offset, action

    def write(self, content: memoryview) -> None:
        self.file.write(content[: self.offset])
        self.file.flush()
        self.action()
        self.file.write(content[self.offset :])


@contextlib.contextmanager
def disturbed_write(offset: int, action: Any, path: Path) -> Iterator[Disturbed]:
    with atomic_write(path) as file:
        yield Disturbed(file, offset, action)


def disturb_writing(offset: int, action: Any) -> None:
    disturbed = functools.partial(disturbed_write, offset, action)
    siamtransfer.checkpoints.training_state.atomic_write = disturbed  # type: ignore[assignment]


def die() -> None:
    send(signal.SIGKILL)


def save_and_die(run: Path, offset: int) -> None:
    disturb_writing(offset, die)
    Checkpoints(run).save(state_of(3), 3)


def save_and_die_at_the_rename(run: Path, number: int, *, after: bool) -> None:
    """The first rename makes the numbered file, the second checkpoint.pth."""
    rename, renamed = Path.replace, 0

    def replace(self: Path, target: Path) -> Path:
        nonlocal renamed
        renamed += 1
        if renamed == number and not after:
            die()
        result = rename(self, target)
        if renamed == number:
            die()
        return result

    Path.replace = replace  # type: ignore[method-assign,assignment]
    Checkpoints(run).save(state_of(3), 3)


def killed(what: Any, *arguments: Any, **named: Any) -> None:
    process = context().Process(target=what, args=arguments, kwargs=named)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("offset", random.Random(3).sample(range(20_000), 10))
def test_fault_03_killed_while_the_file_is_written(offset: int, saved: Path) -> None:
    killed(save_and_die, saved, offset)
    assert [path.stat().st_size for path in leftovers(saved)] == [offset]
    assert_the_next_run_goes_on_from(2, saved)


@pytest.mark.parametrize(
    ("number", "after", "step"), [(1, False, 2), (1, True, 3), (2, False, 3), (2, True, 3)]
)
def test_fault_03_killed_around_a_rename(number: int, after: bool, step: int, saved: Path) -> None:
    killed(save_and_die_at_the_rename, saved, number, after=after)
    assert_the_next_run_goes_on_from(step, saved)


def assert_the_next_run_goes_on_from(step: int, run: Path) -> None:
    assert found(run) == step
    checkpoints = Checkpoints(run)
    checkpoints.clean()
    assert leftovers(run) == []
    checkpoints.publish_newest()
    assert torch.load(run / "checkpoint.pth", weights_only=True)["progress"]["step"] == step
    checkpoints.save(state_of(4), 4)
    assert found(run) == 4
    assert steps_kept(run) == [step, 4]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    complete(folder)
    return folder


def test_fault_03_a_run_killed_while_it_saves_goes_on(undisturbed: Path, tmp_path: Path) -> None:
    fault = functools.partial(before_step, 6, functools.partial(disturb_writing, 123_456, die))
    run = launch(tmp_path / "run", fault=fault)
    assert run.wait() == -signal.SIGKILL
    assert steps_kept(run.folder) == [4]
    complete(run.folder, "--resume")
    assert leftovers(run.folder) == []
    assert_same_run(run.folder, undisturbed)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def unreadable(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


DAMAGES = [truncate, halve, empty, flip_a_byte, unreadable]


@pytest.mark.parametrize("damage", DAMAGES)
def test_fault_04_the_newest_file_is_damaged(damage: Any, saved: Path) -> None:
    checkpoints = Checkpoints(saved)
    path = next(checkpoints.folder.glob("step-0000002-*.pth"))
    damage(path)
    warnings: list[str] = []
    state = checkpoints.load_newest(warnings.append)
    assert state is not None
    assert differences(state, state_of(1)) == []
    assert len(warnings) == 1
    assert str(path) in warnings[0]


@pytest.mark.parametrize("damage", DAMAGES)
def test_fault_04_no_file_is_whole(damage: Any, saved: Path) -> None:
    checkpoints = Checkpoints(saved)
    for path in checkpoints.folder.glob("step-*.pth"):
        damage(path)
    warnings: list[str] = []
    with pytest.raises(UserError, match="all 2 checkpoints in"):
        checkpoints.load_newest(warnings.append)
    assert len(warnings) == 2


def test_fault_04_a_run_goes_on_from_an_older_file(undisturbed: Path, tmp_path: Path) -> None:
    fault = functools.partial(before_step, 13, die)
    run = launch(tmp_path / "run", fault=fault)
    assert run.wait() == -signal.SIGKILL
    flip_a_byte(next((run.folder / "checkpoints").glob("step-0000012-*.pth")))
    again = launch(run.folder, "--resume")
    assert again.wait() == 0, again.said
    assert "step-0000012" in again.said.splitlines()[0]
    assert "is damaged" in again.said.splitlines()[0]
    assert "steps 8 to 15" in again.said
    assert_same_run(run.folder, undisturbed)
    for path in (run.folder / "checkpoints").glob("step-*.pth"):
        halve(path)
    refused = launch(run.folder, "--resume")
    assert refused.wait() == 2
    assert "error: all 2 checkpoints" in refused.said
    assert "[1/15]" not in refused.said


def test_fault_04_damaged_files_do_not_take_the_place_of_whole_ones(tmp_path: Path) -> None:
    """Going on from step 4 with a damaged file of step 8, two whole ones must be kept, not one."""
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (4, 8):
        checkpoints.save(state_of(step), step)
    halve(next(checkpoints.folder.glob("step-0000008-*.pth")))
    for step in (5, 6):
        checkpoints.save(state_of(step), step)
    assert steps_kept(tmp_path) == [5, 6]
    assert found(tmp_path) == 6
