"""metrics.jsonl is opened again by one pass over it, and stays whole where the disk is full."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from support.damage import damages
from support.thorough import more

from siamtransfer.training import journal_file
from siamtransfer.training.journal import Journal
from siamtransfer.training.journal_file import JournalFile, _scan
from siamtransfer.training.journal_rows import read_rows
from siamtransfer.utils.errors import UserError

pytestmark = pytest.mark.fault
STEPS = [1, 2, 2, 3, 5, 8, 8, 8, 9]


def written(folder: Path, steps: list[int] = STEPS) -> Path:
    journal = Journal(folder, tensorboard=False)
    for number, step in enumerate(steps):
        journal.write(step, {"loss": number / 8, "words": "ü\n", **({"knn": 1.5} if step == 2 else {})})
    journal.close()
    return folder / "metrics.jsonl"


def reopened(path: Path, start: int) -> list[dict[str, Any]] | str:
    """The rows of a file that was opened at `start`, or why it cannot be."""
    try:
        JournalFile(path, start).close()
    except UserError as error:
        return str(error)
    return read_rows(path)


def test_the_pass_over_whole_files_keeps_the_rows_up_to_the_step(tmp_path: Path) -> None:
    rows = read_rows(written(tmp_path))
    for start in (9, 8, 7, 5, 4, 3, 2, 1):
        kept = _scan(tmp_path / "metrics.jsonl", tmp_path / "metrics.jsonl.crc32", start)
        assert kept is not None
        expected = [row for row in rows if row["step"] <= start]
        assert kept.number == len(expected)
        assert kept.recent == [row for row in expected if row["step"] == expected[-1]["step"]]
        assert reopened(tmp_path / "metrics.jsonl", start) == expected


@pytest.mark.parametrize(
    ("name", "count"),
    [(name, 20) for name in ("metrics.jsonl", "metrics.jsonl.crc32")]
    + [more(name, 400) for name in ("metrics.jsonl", "metrics.jsonl.crc32")],
)
def test_no_damage_passes_that_a_reader_would_notice(name: str, count: int, tmp_path: Path) -> None:
    path = written(tmp_path)
    whole = {file: file.read_bytes() for file in tmp_path.iterdir()}
    noticed = 0
    for damaged in damages(whole[tmp_path / name], None, count=count):
        for start in (9, 5):
            for file, content in whole.items():
                file.write_bytes(content)
            (tmp_path / name).write_bytes(damaged)
            try:
                expected: Any = read_rows(path, up_to=start)
            except UserError as error:
                expected = str(error)
            assert reopened(path, start) == expected
            noticed += isinstance(expected, str)
    assert noticed >= count


def test_the_last_number_of_a_name_is_found_in_the_file(tmp_path: Path) -> None:
    written(tmp_path)
    journal = Journal(tmp_path, start=8, tensorboard=False)
    assert journal.latest("knn") == (2, 1.5)
    assert journal.latest("loss") == (8, 7 / 8)
    assert journal.latest("los") is None
    assert journal.latest("words") == (8, "ü\n")
    assert journal.has(8, "loss") and len(journal.rows_of(8)) == 3
    journal.write(9, {"knn": 2.0})
    assert journal.latest("knn") == (9, 2.0)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_row_without_room_leaves_both_files_as_they_were(
    which: int, share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    file = JournalFile(path, 9)
    write = os.write
    calls = 0

    def refuse(descriptor: int, text: bytes) -> int:
        nonlocal calls
        calls += 1
        if calls <= which:
            return write(descriptor, text)
        if calls == which + 1 and share:
            return write(descriptor, text[: max(1, int(share * len(text)) - 1)])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(journal_file.os, "write", refuse)
    with pytest.raises(OSError, match="No space left"):
        file.append({"step": 10, "loss": 1.0})
    monkeypatch.undo()
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == before
    file.append({"step": 11, "loss": 1.0})
    assert read_rows(path)[-1] == {"step": 11, "loss": 1.0}


def test_a_journal_that_is_not_patient_says_so_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path, tensorboard=False)

    def refuse(file: int, text: bytes) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(journal_file, "write_all", refuse)
    with pytest.raises(UserError, match=r"cannot write .*metrics\.jsonl: Input/output error .*look at it"):
        journal.write(1, {"loss": 1.0})


@pytest.mark.parametrize("in_file", [0, 1, 2, 3])
def test_rows_of_a_checkpoint_are_written_once(in_file: int, tmp_path: Path) -> None:
    """The checkpoint holds two rows that found no room; some of them got into the file after it."""
    written(tmp_path, [1, 2])
    found_no_room = [{"step": 3, "loss": 0.5}, {"step": 4, "loss": 0.25}]
    journal = Journal(tmp_path, start=2, tensorboard=False)
    for row in [*found_no_room, {"step": 4, "knn": 1.0}][:in_file]:
        journal.write(row["step"], {name: value for name, value in row.items() if name != "step"})  # type: ignore[arg-type]
    journal.close()
    Journal(tmp_path, start=4, tensorboard=False, unwritten={"after": 2, "rows": found_no_room}).close()
    expected = [*found_no_room, {"step": 4, "knn": 1.0}] if in_file == 3 else found_no_room
    assert read_rows(tmp_path / "metrics.jsonl")[2:] == expected
