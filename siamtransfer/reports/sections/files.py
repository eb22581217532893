"""The tables as files: Markdown, LaTeX and CSV, to copy or to save."""

from __future__ import annotations

from siamtransfer.reports.section import Section
from siamtransfer.reports.sources import Sources
from siamtransfer.reports.tables import table_files

KINDS = {
    "scores.md": "The table as Markdown",
    "scores.tex": "The table as LaTeX (booktabs)",
    "scores.csv": "The scores with intervals, ranks and digests, as CSV",
    "numbers.csv": "Every number, as CSV",
}


def files_section(sources: Sources) -> Section | None:
    """Buttons that copy and save the tables; None where nothing was measured."""
    if not sources.board.columns:
        return None
    files = table_files(sources)
    rows = [(KINDS[name], name) for name in files]
    return Section("files", "Downloads", "sections/files.html", {"rows": rows}, data={"files": files})
