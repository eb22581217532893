"""A section of the page: a template, what it is filled with, and the scripts that it needs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Section:
    """A part of the page below a heading of its own.

    Attributes:
        id: its anchor, and the name of its data (`readData(id)` in a script).
        title: the heading.
        template: a file in reports/templates/, such as sections/answer.html.
        context: the variables of the template.
        data: what its scripts read, anything that is JSON; NaN and infinities become null.
        scripts, styles: names of files in reports/templates/ that the page then holds once.
        plotly: whether it has charts, so that the page holds the library once.
        note: a sentence below the heading.
        folded: whether only the heading shows until it is opened.
    """

    id: str
    title: str
    template: str
    context: dict[str, Any] = field(default_factory=dict)
    data: Any = None
    scripts: tuple[str, ...] = ()
    styles: tuple[str, ...] = ()
    plotly: bool = False
    note: str = ""
    folded: bool = False
