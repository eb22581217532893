"""Markdown pages into which tables are written, between marks.

<!-- suite NAME --> … <!-- end of suite NAME -->            the whole table of a suite
<!-- rows of NAME: ONE, ANOTHER --> … <!-- end of rows -->  some rows of it, or all by the word `all`
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from siamtransfer.experiments.records import Records
from siamtransfer.experiments.suites import ExperimentSuite
from siamtransfer.experiments.tables import excerpt
from siamtransfer.utils.errors import UserError

_BEGIN, _END = "<!-- suite {} -->", "<!-- end of suite {} -->"
_ROWS = re.compile(r"(<!-- rows of (\S+): ([^\n]*?) -->\n).*?(<!-- end of rows -->)", re.DOTALL)


def with_table(page: str, suite: str, text: str, where: str) -> str:
    """The page with `text` between the marks of a suite.

    Raises:
        UserError: it has none.
    """
    begin, end = _BEGIN.format(suite), _END.format(suite)
    before, mark, rest = page.partition(begin)
    _, closing, after = rest.partition(end)
    if not (mark and closing):
        raise UserError(f"{where} lacks the lines {begin} and {end}, between which the table stands")
    return f"{before}{begin}\n\n{text}\n{end}{after}"


def with_rows(page: str, suites: Mapping[str, ExperimentSuite], records: Path, where: str) -> str:
    """The page with the rows that its marks ask for; a page without marks stays as it is.

    Raises:
        UserError: a mark names a suite or an experiment that is not known.
    """

    def filled(match: re.Match[str]) -> str:
        begin, name, words, end = match.groups()
        if name not in suites:
            raise UserError(f"{where} asks for rows of {name}, which is no suite of experiments")
        known = [experiment.name for experiment in suites[name].experiments]
        names = known if words == "all" else [word.strip() for word in words.split(",")]
        for one in names:
            if one not in known:
                raise UserError(f"{where} asks for the row {one}, but {name} has only {', '.join(known)}")
        text = excerpt(suites[name], Records(records, suites[name]), names)
        return f"{begin}\n{text}\n{end}"

    return _ROWS.sub(filled, page)
