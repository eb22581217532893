"""docs/GLOSSARY.md: no word twice, every word explained, and every link leads to a heading that there is."""

from __future__ import annotations

import re

from support.paths import ROOT

DOCS = ROOT / "docs"
TEXT = (DOCS / "GLOSSARY.md").read_text(encoding="utf-8")


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site name them."""
    titles = re.findall(r"^#+ (.*)$", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_words() -> None:
    entries = re.findall(r"^\*\*(.+?)\*\*(.*?)(?=\n\n|\Z)", TEXT, re.MULTILINE | re.DOTALL)
    words = [word.strip(".").lower() for entry, _ in entries for word in entry.split(", ")]
    assert len(words) > 60
    assert len(set(words)) == len(words)
    assert [entry for entry, explained in entries if len(explained.split()) < 5] == []
    for word in ("view", "backbone", "projector", "predictor", "collapse", "protocol", "record"):
        assert word in words


def test_links() -> None:
    links = re.findall(r"\]\(([\w.-]+\.md)(?:#([\w-]+))?\)", TEXT)
    assert len(links) >= 12
    for page, anchor in links:
        assert (DOCS / page).is_file(), page
        assert not anchor or anchor in anchors(page), f"{page}#{anchor}"
