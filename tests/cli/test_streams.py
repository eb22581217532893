"""Standard streams that are closed, full, without reader or of another encoding: no traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT
from support.thorough import more

pytestmark = pytest.mark.fault

RECORD = "from siamtransfer.cli import run; run(lambda: {'task': 'é \\U0001f600 \\udcff', 'x': 'y' * %d})"
HELP = "from siamtransfer.cli.main import main; main()"
FULL = "what was to be printed on stdout is lost: No space left on device"


def end(
    code: str, redirection: str, *words: str, folder: Path | None = None, **environment: str
) -> tuple[int, str, str]:
    """Status, stdout and stderr of a program behind a redirection of the shell."""
    shell = ["bash", "-c", f'"$@" {redirection}', "bash", sys.executable, "-c", code, *words]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run(shell, capture_output=True, cwd=folder or ROOT, env=variables)
    errors = done.stderr.decode()
    assert "Traceback" not in errors
    assert "Exception ignored" not in errors
    return done.returncode, done.stdout.decode(), errors


@pytest.mark.parametrize(
    ("code", "words", "redirection", "status", "said"),
    [
        (RECORD % 9, (), "> /dev/full", 3, FULL),
        more(RECORD % 99999, (), "> /dev/full", 3, FULL),
        (HELP, ("knn", "--help-all"), "> /dev/full", 3, FULL),
        more(HELP, ("--help",), "> /dev/full", 3, FULL),
        more(HELP, ("pretrain", "--print-config"), "> /dev/full", 3, FULL),
        (RECORD % 9, (), ">&-", 0, ""),
        (HELP, ("identify", "none.pth"), ">&- <&-", 2, "there is no file none.pth"),
        (HELP, ("identify", "none.pth"), "2> /dev/full", 2, ""),
        more(HELP, ("identify", "none.pth"), ">&- 2>&- <&-", 2, ""),
        more(HELP, ("identify", "none.pth"), "2>&-", 2, ""),
    ],
)
def test_a_stream_that_takes_nothing_has_a_status(
    code: str, words: tuple[str, ...], redirection: str, status: int, said: str
) -> None:
    ended, out, errors = end(code, redirection, *words, PYTHONUNBUFFERED="")
    assert (ended, out) == (status, "")
    assert said in errors
    assert bool(said) == bool(errors)


def test_an_unbuffered_stream_that_is_full_is_told_too() -> None:
    status, _, errors = end(RECORD % 9, "> /dev/full", PYTHONUNBUFFERED="1")
    assert status == 3
    assert FULL in errors


@pytest.mark.parametrize("words", [("--help",), more(("knn", "--help-all")), more(("configs",))])
def test_a_reader_that_went_away_hears_nothing(words: tuple[str, ...]) -> None:
    status, out, errors = end(HELP, "| head -c 1; exit ${PIPESTATUS[0]}", *words)
    assert status in (0, 1)
    assert len(out) == 1
    assert errors == ""


def test_no_file_gets_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    code = (
        "import os, sys; from siamtransfer.cli import run\n"
        "def main():\n"
        "    file = open('kept', 'w'); assert file.fileno() > 2\n"
        "    os.write(1, b'noise'); os.write(2, b'noise'); print('noise')\n"
        "    file.write('whole'); file.close()\n"
        "    return {'task': 'x'}\n"
        "run(main)"
    )
    assert end(code, ">&- 2>&- <&-", folder=tmp_path) == (0, "", "")
    assert (tmp_path / "kept").read_text() == "whole"


def test_the_record_is_json_in_every_encoding() -> None:
    expected = {"task": "é \U0001f600 \udcff", "x": "y"}
    for encoding in ("ascii", "latin-1", "utf-8"):
        status, out, _ = end(RECORD % 1, "", PYTHONIOENCODING=encoding)
        assert status == 0
        assert json.loads(out) == expected


@pytest.mark.parametrize(
    "variables",
    [
        {
            "LC_ALL": "C",
            "PYTHONIOENCODING": "ascii",
            "PYTHONUTF8": "0",
            "COLUMNS": "1",
            "TERM": "",
            "HOME": "",
        },
        more({"TMPDIR": "/nowhere"}),
    ],
)
def test_poor_environments_change_no_status(variables: dict[str, str]) -> None:
    status, out, errors = end(HELP, "", "identify", "ü\u200b.pth", **variables)
    assert (status, out) == (2, "")
    assert "there is no file" in errors


def test_a_folder_that_was_removed_is_told(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    code = f"import os; os.rmdir({str(tmp_path / 'gone')!r})\n{HELP}"
    status, _, errors = end(code, "", "identify", "none.pth", folder=tmp_path / "gone")
    assert status == 2
    assert errors.startswith("error: ")
