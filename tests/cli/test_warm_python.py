"""A Python command in a fork is like one in a process of its own, and so are those that it starts."""

from __future__ import annotations

import os
from pathlib import Path

from support.warm_python import run_python

INNER = "import os, sys; print('inner', os.getcwd(), sys.stdin.read()); sys.exit(3)"
OUTER = f"""
import os, subprocess, sys
print(os.getcwd(), sys.argv[1:], os.environ["WORD"])
words = [sys.executable, "-c", {INNER!r}]
done = subprocess.run(words, input="given", stdout=subprocess.PIPE, text=True, cwd="/")
print(done.stdout.strip(), done.returncode)
sys.exit("a sentence")
"""


def test_folder_environment_words_streams_and_status(tmp_path: Path) -> None:
    done = run_python("-c", OUTER, "a b", cwd=tmp_path, env={**os.environ, "WORD": "here"})
    assert done.stdout == f"{tmp_path} ['a b'] here\ninner / given 3\n"
    assert (done.stderr, done.returncode) == ("a sentence\n", 1)


def test_an_error_is_a_traceback_and_status_1(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("VALUE = 3")
    (tmp_path / "script.py").write_text("import beside\nprint(beside.VALUE)\n1 / 0\n")
    done = run_python("script.py", cwd=tmp_path)
    assert (done.stdout, done.returncode) == ("3\n", 1)
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")
