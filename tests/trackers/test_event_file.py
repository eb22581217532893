"""A run has one file of events, whole whatever happened to the program that wrote it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from siamtransfer.trackers import event_file
from siamtransfer.trackers.tensorboard_events import TensorBoardRun

pytestmark = pytest.mark.fault


def steps_of(folder: Path) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return [(event.step, event.value) for event in accumulator.Scalars("loss")]


def write(folder: Path, steps: range, start: int = 0, factor: float = 1.0) -> None:
    run = TensorBoardRun(folder, start)
    for step in steps:
        run.write(step, {"loss": factor * step, "words": "left out"})
    run.close()
    run.close()


def test_starts_share_a_file_and_later_rows_replace_those_of_a_killed_run(tmp_path: Path) -> None:
    write(tmp_path, range(1, 6))
    for start in (3, 4, 5):
        write(tmp_path, range(start + 1, start + 3), start, 10.0)
    assert len(list(tmp_path.iterdir())) == 1
    assert steps_of(tmp_path) == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0), (5, 50.0), (6, 60.0), (7, 70.0)]


def test_a_file_of_torchs_writer_is_gone_on_with(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        for step in (1, 2, 3):
            writer.add_scalar("loss", float(step), step)
    write(tmp_path, range(3, 5), start=2, factor=2.0)
    assert len(list(tmp_path.iterdir())) == 1
    assert steps_of(tmp_path) == [(1, 1.0), (2, 2.0), (3, 6.0), (4, 8.0)]


@pytest.mark.parametrize("lost", [1, 4, 13, 20])
def test_a_half_written_event_is_cut_off(lost: int, tmp_path: Path) -> None:
    write(tmp_path, range(1, 4))
    (file,) = tmp_path.iterdir()
    os.truncate(file, file.stat().st_size - lost)
    write(tmp_path, range(3, 5), start=2)
    assert list(tmp_path.iterdir()) == [file]
    assert steps_of(tmp_path) == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]


def test_a_damaged_file_is_left_alone_and_a_new_one_begins_behind_it(tmp_path: Path) -> None:
    write(tmp_path, range(1, 4))
    (file,) = tmp_path.iterdir()
    content = bytearray(file.read_bytes())
    content[8] ^= 1  # the checksum of the first length
    file.write_bytes(content)
    write(tmp_path, range(4, 5), start=3)
    assert file.read_bytes() == content
    first, second = sorted(tmp_path.iterdir())
    assert first == file
    assert second.stat().st_size > 0


def test_an_event_without_room_leaves_whole_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = TensorBoardRun(tmp_path)
    run.write(1, {"loss": 1.0})
    write_bytes = os.write

    def refuse(file: int, content: memoryview) -> int:
        if len(content) > 10:
            return write_bytes(file, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(event_file.os, "write", refuse)
    with pytest.raises(OSError, match="No space left") as caught:
        run.write(2, {"loss": 2.0})
    assert str(caught.value.filename).startswith(str(tmp_path))
    monkeypatch.undo()
    run.write(3, {"loss": 3.0})
    run.close()
    assert steps_of(tmp_path) == [(1, 1.0), (3, 3.0)]
