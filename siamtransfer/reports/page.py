"""Sections to one HTML file: a template, scripts and styles inlined, and no way to the network."""

from __future__ import annotations

import functools
import importlib.resources
from collections.abc import Iterable, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from siamtransfer.reports.embedded_json import embedded_json
from siamtransfer.reports.section import Section
from siamtransfer.version import __version__

MARK = '<meta name="generator" content="siamtransfer report'
"""In the head of every page of ours, and so of a file that a new page may replace."""
SCRIPTS = ("theme.js", "data.js", "popover.js", "numbers_table.js", "save.js")
STYLES = ("style.css", "numbers.css")
POLICY = "; ".join(
    (
        "default-src 'none'",
        "img-src data: blob:",
        "style-src 'unsafe-inline'",
        "script-src 'unsafe-inline'",
        "font-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    )
)
"""The Content-Security-Policy of the page: whatever stands in it, nothing is fetched and nothing is sent."""


def render(title: str, sections: Sequence[Section], details: dict[str, Any], facts: Sequence[str]) -> str:
    """The page.

    Args:
        title: its heading.
        sections: in their order.
        details: what the popovers of numbers show (details.py).
        facts: short texts below the title, such as the number of records.
    """
    bodies = {section.id: _body(section) for section in sections}
    scripts = [_file(name) for name in _once(SCRIPTS, *(section.scripts for section in sections))]
    if any(section.plotly for section in sections):
        from siamtransfer.reports.charts import plotly_script

        scripts.insert(0, plotly_script())
    styles = [_file(name) for name in _once(STYLES, *(section.styles for section in sections))]
    data = {section.id: section.data for section in sections if section.data is not None}
    text: str = (
        environment()
        .get_template("page.html")
        .render(
            title=title,
            facts=facts,
            sections=sections,
            bodies=bodies,
            styles=[Markup(text) for text in styles],
            scripts=[_script(text) for text in scripts],
            data={name: embedded_json(content) for name, content in {"numbers": details, **data}.items()},
            policy=POLICY,
            mark=Markup(MARK),
            version=__version__,
        )
    )
    return text


@functools.cache
def environment() -> Environment:
    """Jinja's environment of the room: everything is escaped, and an unknown name is an error."""
    return Environment(
        loader=PackageLoader("siamtransfer.reports", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _body(section: Section) -> Markup:
    template = environment().get_template(section.template)
    return Markup(template.render(section=section, **section.context))


def _script(text: str) -> Markup:
    """A script as it may stand in its element.

    Raises:
        ValueError: it holds what would end the element.
    """
    if "</script" in text.lower():
        raise ValueError("a script of the page must not hold </script")
    return Markup(text)


def _file(name: str) -> str:
    return (importlib.resources.files("siamtransfer.reports") / "templates" / name).read_text("utf-8")


def _once(*groups: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(name for group in groups for name in group))
