"""Counts the faults that the tests of docs/RELIABILITY.md try, and writes the numbers into its tables.

    python scripts/count_faults.py            writes the last column of every row
    python scripts/count_faults.py --check    exits with 1 where a number differs

A fault is a case of a test, as pytest collects it with the further cases of `make test-thorough`; a fuzzed
test has as many as `make faults` draws inputs. Nothing is run.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

os.environ["FUZZ_TIMES"] = "20"  # as `make faults` has it, before support.fuzz is imported

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "RELIABILITY.md"
TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
"""A test in a row: a file, or a function of it."""


class Counting:
    """A plug-in of pytest that counts what is collected.

    Attributes:
        faults: how many by file and by function of a file.
    """

    def __init__(self) -> None:
        self.faults: Counter[str] = Counter()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Adds up the cases of each function, and of each file."""
        for item in session.items:
            node = item.nodeid.split("[")[0]
            chosen = getattr(getattr(item, "obj", None), "_hypothesis_internal_use_settings", None)
            inputs = 1 if chosen is None else chosen.max_examples
            self.faults[node] += inputs
            self.faults[node.split("::")[0]] += inputs


def tests_of(row: str) -> list[str]:
    """The tests that a row of a table names, as pytest names them."""
    return ["::".join(part for part in found if part) for found in TEST.findall(row)]


def rows_of(page: str) -> list[str]:
    """The rows of all tables that name a test."""
    return [line for line in page.splitlines() if line.startswith("|") and TEST.search(line)]


def collect(files: Sequence[str]) -> Counter[str]:
    """How many faults the tests in these files try, by file and by function.

    Raises:
        SystemExit: pytest cannot collect one.
    """
    counting = Counting()
    options = ["--collect-only", "-qq", "-p", "no:cacheprovider", "-m", "thorough or not thorough"]
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        status = pytest.main([*options, *files], plugins=[counting])
    if status != pytest.ExitCode.OK:
        sys.exit(f"{said.getvalue()}\npytest cannot collect the tests of {PAGE.name}")
    return counting.faults


def counted(page: str, faults: Counter[str]) -> str:
    """The page with the number of faults in the last cell of each row, and the sum of all in its place.

    Raises:
        SystemExit: a test that a row names does not exist.
    """
    named: set[str] = set()
    lines = page.splitlines()
    for number, line in enumerate(lines):
        if not (line.startswith("|") and TEST.search(line)):
            continue
        tests = tests_of(line)
        for test in tests:
            if test not in faults:
                sys.exit(f"{PAGE.name}: there is no test {test}")
        named |= set(tests)
        cells = line.rstrip(" |").split(" | ")
        cells[-1] = f"{sum(faults[test] for test in tests):,}"
        lines[number] = " | ".join(cells) + " |"
    whole = {test for test in named if "::" not in test or test.split("::")[0] not in named}
    total = f"{sum(faults[test] for test in whole):,}"
    return re.sub(r"\*\*[\d,]+ faults\*\*", f"**{total} faults**", "\n".join(lines) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes or checks the page; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit with 1 where a number differs"
    )
    options = parser.parse_args(arguments)
    os.chdir(ROOT)
    page = PAGE.read_text(encoding="utf-8")
    files = sorted({test.split("::")[0] for row in rows_of(page) for test in tests_of(row)})
    now = counted(page, collect(files))
    if options.check:
        return int(now != page)
    PAGE.write_text(now, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
