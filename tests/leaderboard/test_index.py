"""The index of a folder: made of the records, brought up to date, made anew when it is damaged."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from support.boards import SETTING, answers, write_knn

from siamtransfer.leaderboard import board, collect
from siamtransfer.leaderboard import index as index_module
from siamtransfer.leaderboard.index import update_index
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import digest_of_file

RIGHT = answers(0, 0.6, 0.8, samples=50)


@pytest.fixture
def records(tmp_path: Path) -> Path:
    for name, right in zip("ab", RIGHT, strict=True):
        write_knn(tmp_path / name / "knn.json", name, right)
    (tmp_path / "suite.json").write_text('{"plan": 1}')
    return tmp_path


def test_an_entry_for_every_number_under_every_protocol(records: Path) -> None:
    write_knn(records / "other.json", "a", RIGHT[0], similarity="euclidean")
    entries = update_index(records)
    assert [entry.record for entry in entries] == ["a/knn.json", "b/knn.json", "other.json"]
    first, second, other = entries
    assert (first.metric, first.task, first.source) == (f"knn/{SETTING}/top1", "knn", "runs/a/checkpoint.pth")
    assert (first.value, first.low, first.high) == pytest.approx((60, 58, 62), abs=8)
    assert first.record_digest == digest_of_file(records / "a" / "knn.json")
    assert first.protocol_key == second.protocol_key != other.protocol_key
    assert (first.backbone, first.reading) == (other.backbone, other.reading)
    assert first.backbone != second.backbone
    keys = {column.protocol_key for column in board(collect([records])).columns}
    assert {entry.protocol_key for entry in entries} == keys
    assert json.loads((records / "index.json").read_text())["version"] == 1
    assert len(collect([records])) == 3, "the index is no record"


def test_only_files_that_changed_are_read_again(records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = update_index(records)
    written = (records / "index.json").stat().st_mtime_ns
    read: list[str] = []
    original = index_module._entries_of

    def counted(file: Path, name: str) -> list[index_module.Entry]:
        read.append(name)
        return original(file, name)

    monkeypatch.setattr(index_module, "_entries_of", counted)
    assert update_index(records) == before
    assert read == []
    assert (records / "index.json").stat().st_mtime_ns == written, "an index that is right is not written"
    file = records / "b" / "knn.json"
    os.utime(file, ns=(1, 1))
    write_knn(records / "c.json", "c", RIGHT[0])
    assert [entry.record for entry in update_index(records)] == ["a/knn.json", "b/knn.json", "c.json"]
    assert read == ["b/knn.json", "c.json"]
    file.unlink()
    assert [entry.record for entry in update_index(records)] == ["a/knn.json", "c.json"]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"version": 1}', '{"version": 1, "files": {"a": {}}}', "\x00"]
)
def test_a_damaged_index_is_made_anew(records: Path, content: str, caplog: pytest.LogCaptureFixture) -> None:
    expected = update_index(records)
    (records / "index.json").write_text(content)
    with caplog.at_level("INFO", "siamtransfer"):
        assert update_index(records) == expected
    assert "index.json is no index or a damaged one: it is made anew from the records" in caplog.text
    caplog.clear()
    assert update_index(records) == expected
    assert "damaged" not in caplog.text


def test_damaged_records_have_no_entry(records: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = records / "b" / "knn.json"
    file.write_text(file.read_text()[:50])
    with caplog.at_level("INFO", "siamtransfer"):
        assert [entry.record for entry in update_index(records)] == ["a/knn.json"]
    assert "left out: " in caplog.text
    assert "b/knn.json is not JSON" in caplog.text
    (records / "gone.json").symlink_to(records / "nowhere.json")
    file.write_text("[" * 100_000)
    with caplog.at_level("INFO", "siamtransfer"):
        assert [entry.record for entry in update_index(records)] == ["a/knn.json"]
    assert "gone.json cannot be read: No such file or directory" in caplog.text
    assert "is nested deeper than the 100 levels" in caplog.text
    with pytest.raises(UserError, match=r"knn\.json is no folder, and an index is kept of a folder"):
        update_index(file)
