"""A copy of a folder on a node's own disk: whole, continued, compared, made once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from siamtransfer.launch.stage import stage
from siamtransfer.utils.errors import UserError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    for name, size in (("a/1.jpg", 10), ("a/2.jpg", 20), ("b/1.jpg", 30), ("classes.txt", 5)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name[-1].encode() * size)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_copy_is_equal_and_is_made_once(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "disk" / "copy"
    with ThreadPoolExecutor(4) as pool:
        copies = list(pool.map(lambda _: stage(source, target), range(4)))
    assert sorted(copy.copied_bytes for copy in copies) == [0, 0, 0, 65]
    assert {(copy.files, copy.bytes) for copy in copies} == {(4, 65)}
    assert contents(target) == contents(source)


def test_a_stopped_copy_is_continued(source: Path, tmp_path: Path) -> None:
    partial = tmp_path / ".copy.partial"
    (partial / "a").mkdir(parents=True)
    (partial / "a" / "1.jpg").write_bytes((source / "a" / "1.jpg").read_bytes())
    (partial / "a" / "2.jpg").write_bytes(b"g")  # cut off
    (partial / "b.jpg.unfinished").write_bytes(b"?")
    assert stage(source, tmp_path / "copy").copied_bytes == 55
    assert contents(tmp_path / "copy") == contents(source)
    assert not partial.exists()


def test_what_is_no_copy_is_refused_and_left(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    stage(source, target)
    (target / "a" / "2.jpg").write_bytes(b"g")
    with pytest.raises(UserError, match=r"a/2\.jpg has 1 bytes instead of 20; remove it"):
        stage(source, target)
    assert (target / "a" / "2.jpg").read_bytes() == b"g"


def test_a_full_disk_is_found_before_the_copy(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 64

    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage)
    with pytest.raises(UserError, match="GB more"):
        stage(source, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("nowhere", "copy"), "is no folder"),
        (("source", "source/copy"), "lie in each other"),
        (("empty", "copy"), "holds no files"),
    ],
)
def test_a_wrong_folder_is_refused(source: Path, tmp_path: Path, names: tuple[str, str], said: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=said):
        stage(tmp_path / names[0], tmp_path / names[1])
