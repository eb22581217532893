"""Tables stand between their marks in the pages of the documentation, and show the records."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import paths
from support.experiment_records import record_of, small_suite

from siamtransfer.experiments.pages import with_rows, with_table
from siamtransfer.experiments.records import Records
from siamtransfer.experiments.run import Places, show_rows
from siamtransfer.experiments.suites import read_suites
from siamtransfer.experiments.tables import table
from siamtransfer.utils.errors import UserError

DOCS = paths.ROOT / "docs"
SUITES = read_suites(paths.ROOT / "configs" / "experiments")
ASKED = "before\n<!-- rows of rates: {} -->\nold\n<!-- end of rows -->\nafter\n"


def test_a_table_stands_between_its_marks_and_nothing_else_changes(tmp_path: Path) -> None:
    page = "before\n<!-- suite rates -->\nold\n<!-- end of suite rates -->\nafter\n"
    new = with_table(page, "rates", "| new |", "PAGE.md")
    assert new == "before\n<!-- suite rates -->\n\n| new |\n<!-- end of suite rates -->\nafter\n"
    assert with_table(new, "rates", "| new |", "PAGE.md") == new
    with pytest.raises(UserError, match=r"PAGE\.md lacks the lines <!-- suite hub -->"):
        with_table(page, "hub", "", "PAGE.md")


def test_rows_stand_between_their_marks_in_the_order_of_the_words(tmp_path: Path) -> None:
    suite = small_suite(tmp_path)
    Records(tmp_path, suite).add([record_of(suite["slow"], seed, 20.0 + seed) for seed in (0, 1)])
    for words, names in (("slow, fast", ["slow", "fast"]), ("slow", ["slow"]), ("all", ["fast", "slow"])):
        new = with_rows(ASKED.format(words), {"rates": suite}, tmp_path, "PAGE.md")
        lines = new.splitlines()
        assert lines[3] == "|  | question | published | kNN top-1 | difference |"
        assert [line.split("`")[1] for line in lines if "`" in line] == names
        assert lines[0] == "before" and lines[-1] == "after" and "old" not in lines
        assert with_rows(new, {"rates": suite}, tmp_path, "PAGE.md") == new
    assert "| `slow` | With a low rate? | 68.1 | 20.5 ± 6.4 |  |" in lines
    assert "| `fast` | With a high rate? | 68.1 | not measured | |" in lines


def test_rows_that_are_not_known_are_refused(tmp_path: Path) -> None:
    suite = small_suite(tmp_path)
    with pytest.raises(UserError, match=r"PAGE\.md asks for the row quick, but rates has only fast, slow"):
        with_rows(ASKED.format("quick"), {"rates": suite}, tmp_path, "PAGE.md")
    with pytest.raises(UserError, match=r"PAGE\.md asks for rows of rates, which is no suite"):
        with_rows(ASKED.format("slow"), {}, tmp_path, "PAGE.md")


def test_every_page_beside_the_page_gets_its_rows(tmp_path: Path) -> None:
    suite = small_suite(tmp_path)
    Records(tmp_path, suite).add([record_of(suite["slow"], 0, 20.0)])
    (tmp_path / "STORY.md").write_text(ASKED.format("slow"))
    (tmp_path / "OTHER.md").write_text("no marks\n")
    places = Places(tmp_path / "no-runs", tmp_path, tmp_path / "PAGE.md")
    assert show_rows({"rates": suite}, places) == [tmp_path / "STORY.md"]
    assert "| 68.1 | 20.0 |  |" in (tmp_path / "STORY.md").read_text()
    assert (tmp_path / "OTHER.md").read_text() == "no marks\n"


@pytest.mark.parametrize("name", SUITES)
def test_the_page_shows_the_records(name: str) -> None:
    suite = SUITES[name]
    records = Records(DOCS / "experiments", suite)
    page = DOCS / "EXPERIMENTS.md"
    text = page.read_text(encoding="utf-8")
    assert with_table(text, name, table(suite, records), str(page)) == text, (
        f"python scripts/experiments.py none writes the table of {name} again"
    )


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.stem)
def test_other_pages_show_the_records(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert with_rows(text, SUITES, DOCS / "experiments", str(page)) == text, (
        "python scripts/experiments.py none writes the rows again"
    )
