"""What surrounds every program: one JSON line on stdout, people's text on stderr, the right status."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.small_runs import ROOT

from siamtransfer.cli import run
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say
from siamtransfer.utils.strict_json import to_json


def ends(capsys: pytest.CaptureFixture[str], main: Any) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as ended:
        run(main)
    return (ended.value.code, *capsys.readouterr())


def raises(error: BaseException) -> Any:
    def main() -> None:
        say("working")
        raise error

    return main


def test_a_record_is_the_last_line_of_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert ends(capsys, lambda: {"task": "x", "ü": 1.5}) == (0, '{"task": "x", "ü": 1.5}\n', "")
    assert ends(capsys, lambda: None) == (0, "", "")


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (UserError("the cure is this"), 2, "error: the cure is this\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (SystemExit(143), 143, ""),
    ],
)
def test_how_programs_end(
    error: BaseException, status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends(capsys, raises(error)) == (status, "", "working\n" + said)


def test_a_defect_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run(raises(ZeroDivisionError()))


def test_a_reader_that_went_away_is_no_traceback() -> None:
    code = "from siamtransfer.cli import run; run(lambda: {'x': 'y' * 200000})"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == 1
    assert said == b""


def test_json_is_strict() -> None:
    odd: dict[Any, Any] = {
        "nan": math.nan,
        "more": [math.inf, (1, -math.inf)],
        "path": Path("a"),
        7: {"deep": math.nan},
    }
    assert json.loads(to_json(odd)) == {
        "nan": None,
        "more": [None, [1, None]],
        "path": "a",
        "7": {"deep": None},
    }
    assert "\n" not in to_json({"text": "two\nlines"})
