"""Every number that a program prints is explained, on the terminal and in docs/NUMBERS.md."""

from __future__ import annotations

import re

import pytest
from support.paths import ROOT

from siamtransfer.evaluation.diagnostics.representation import GUIDE
from siamtransfer.evaluation.gradient_view import decomposition
from siamtransfer.records.meanings import STATISTICS, as_markdown, meaning_of, meanings, split_statistic

ROWS = [row for rows in meanings().values() for row in rows]
MADE_UP = ("own/", "rehearsal/")
"""Beginnings of numbers that are no program's: a test's own, a benchmark's."""


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.example)
def test_a_row_explains_its_own_example(row):
    assert meaning_of(row.example) == row
    assert row.better in ("higher", "lower", "neither")
    assert row.short and not row.short.endswith(".")
    assert row.how.endswith(".")
    assert row.unit != "%" or row.range in ("0 to 100", "-100 to 100")


def test_every_number_that_a_test_reads_from_a_record_is_explained():
    names = set()
    for file in (ROOT / "tests").rglob("*.py"):
        names |= set(re.findall(r"metrics(?:\"\])?\[\"([^\"{]+)\"\]", file.read_text()))
    assert len(names) > 60
    assert [name for name in sorted(names) if meaning_of(name) is None and not name.startswith(MADE_UP)] == []


def test_the_diagnostics_and_the_parts_of_a_gradient_are_explained():
    assert all(meaning_of(f"{name}/backbone") for name in GUIDE)
    assert all(meaning_of(f"2/{decomposition.PREFIX}{name}") for name in decomposition.GUIDE)


@pytest.mark.parametrize(
    ("name", "like"),
    [
        ("3/knn/k=5/T=0.07/top1", "knn/k=20/T=0.07/top1"),
        ("baseline/pixels/knn/top1/ci95_low", "knn/k=20/T=0.07/top1"),
        ("fewshot/k=1/C=10/top1/std", "fewshot/k=3/C=1/top1/mean"),
        ("health/std", "health/std"),
        ("detection/AP/traffic light/mean", "detection/AP"),
        ("compare/k=20/T=0.07/top1/ci95_low", "compare/k=20/T=0.07/top1/difference"),
    ],
)
def test_settings_statistics_and_beginnings_do_not_hide_a_number(name: str, like: str):
    assert meaning_of(name) == meaning_of(like) is not None


def test_a_users_own_number_has_no_meaning():
    assert meaning_of("my/number") is None
    assert split_statistic("a/top1/ci95_low") == ("a/top1", "ci95_low")


def test_the_page_is_the_table():
    page = (ROOT / "docs" / "NUMBERS.md").read_text(encoding="utf-8")
    assert as_markdown() in page
    assert all(f"| `/{ending}` | {what} |" in page for ending, what in STATISTICS.items())
