"""The page of promises names tests that exist, and its numbers are theirs."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections import Counter

import count_faults
import pytest
from support.paths import ROOT


@functools.cache
def functions_of(file: str) -> set[str]:
    """The names of the tests in a file."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_named_test_exists() -> None:
    rows = count_faults.rows_of(count_faults.PAGE.read_text(encoding="utf-8"))
    assert len(rows) > 15
    for row in rows:
        for test in count_faults.tests_of(row):
            file, _, function = test.partition("::")
            assert (ROOT / file).is_file(), row
            assert not function or function in functions_of(file), row


def test_every_row_of_a_promise_names_a_test_and_a_number() -> None:
    rows = [line for line in count_faults.PAGE.read_text("utf-8").splitlines() if line.startswith("| ")]
    for row in rows:
        if row.startswith("| promise") or row.count(" | ") < 2:  # the table of trials has two columns
            continue
        assert count_faults.tests_of(row), row
        assert int(row.rstrip(" |").split(" | ")[-1].replace(",", "")) > 0, row


def test_numbers_are_counted_from_the_tests() -> None:
    page = "**9 faults**\n| a | `tests/a.py::test_b`, `tests/c.py` | 7 |\n| b | `tests/c.py::test_d` | 1 |\n"
    faults = Counter({"tests/a.py::test_b": 3, "tests/c.py": 1200, "tests/c.py::test_d": 2, "tests/a.py": 5})
    sums = page.replace("9 faults", "1,203 faults").replace("7 |", "1,203 |").replace("| 1 |", "| 2 |")
    assert count_faults.counted(page, faults) == sums
    with pytest.raises(SystemExit, match=r"there is no test tests/e\.py"):
        count_faults.counted("| a | `tests/e.py` | 1 |\n", faults)


@pytest.mark.thorough
def test_the_numbers_of_the_page_are_those_of_the_tests() -> None:
    done = subprocess.run([sys.executable, "scripts/count_faults.py", "--check"], cwd=ROOT, timeout=250)
    assert done.returncode == 0
