"""What is written appears whole or not at all, and nothing of others is touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import paths

from siamtransfer.exports.staging import refuse_folder, staged_files, staged_folder
from siamtransfer.utils.errors import UserError


def test_a_folder_appears_at_the_end_and_replaces_the_old_one(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    for text in ("first", "second"):
        with staged_folder(out) as folder:
            (folder / "a").write_text(text)
            assert not out.exists() or (out / "a").read_text() == "first"
        assert (out / "a").read_text() == text
    assert list(out.parent.iterdir()) == [out]


def test_a_failure_leaves_the_old_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "a").write_text("old")
    with pytest.raises(ZeroDivisionError), staged_folder(out) as folder:
        (folder / "a").write_text("new")
        raise ZeroDivisionError
    assert (out / "a").read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]


def test_a_full_disk_is_a_sentence(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match=r"cannot write .*out: No space left"),
        staged_folder(tmp_path / "out"),
    ):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_files_of_an_older_export_do_not_stay_beside_a_new_one(tmp_path: Path) -> None:
    out, beside = tmp_path / "o.onnx", tmp_path / "o.onnx.data"
    with staged_files("none", out, [beside], force=False) as path:
        path.write_text("graph")
        path.with_name(beside.name).write_text("weights")
    assert (out.read_text(), beside.read_text()) == ("graph", "weights")
    with pytest.raises(UserError, match="exists"), staged_files("none", out, [beside], force=False):
        raise AssertionError("never reached")
    with staged_files("none", out, [beside], force=True) as path:
        path.write_text("small")
    assert list(tmp_path.iterdir()) == [out]


def test_what_is_no_export_is_never_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    known = ("config.json", "model.safetensors")
    refuse_folder("random:resnet18", out, known, force=False)
    out.mkdir()
    refuse_folder("random:resnet18", out, known, force=False)  # empty
    (out / "config.json").touch()
    refuse_folder("random:resnet18", out, known, force=True)
    for source, words in (
        ("random:resnet18", "exists; choose another name or replace it with --force"),
        (str(out), "holds the checkpoint itself"),
        (f"hf:{out}", "holds the checkpoint itself"),
        (str(out / "config.json"), "holds the checkpoint itself"),
    ):
        with pytest.raises(UserError, match=words):
            refuse_folder(source, out, known, force="itself" in words)
    (out / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"holds thesis\.tex, which no export wrote"):
        refuse_folder("random:resnet18", out, known, force=True)
    with pytest.raises(UserError, match="is a file, and a folder is written"):
        refuse_folder("random:resnet18", out / "config.json", known, force=True)


def test_a_killed_export_leaves_the_old_one(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "config.json").write_text("old")
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from siamtransfer.exports.staging import staged_folder\n"
        "with staged_folder(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'config.json').write_text('new')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(out)], cwd=paths.ROOT, env={**os.environ})
    assert done.returncode == -signal.SIGKILL
    assert [path.name for path in out.iterdir()] == ["config.json"]
    assert (out / "config.json").read_text() == "old"
    [left] = [path for path in tmp_path.iterdir() if path != out]
    assert left.name.startswith(".out.") and left.name.endswith(".tmp")  # hidden, and of no program's names
