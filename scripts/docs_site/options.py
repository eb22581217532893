"""Options of a program or a method as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from docs_site.markdown import prose, table
from siamtransfer.cli.help import ON, heading_of, show
from siamtransfer.cli.options import Option


def options_table(
    options: Iterable[Option], defaults: Mapping[str, Any], page: str, *, anchors: str = "option-"
) -> str:
    """One row an option: what is typed, the default in effect, what it means and which names it takes.

    A row's anchor is `anchors` and the key, as in `option-data-name`.
    """
    rows = [_row(option, defaults, page, anchors) for option in options]
    return table(("Option", "Default", "Meaning"), rows)


def _row(option: Option, defaults: Mapping[str, Any], page: str, anchors: str) -> tuple[str, str, str]:
    default = defaults.get(option.key, option.default)
    meaning = prose(option.help, page)
    if option.choices:
        meaning += " One of " + ", ".join(f"`{choice}`" for choice in option.choices) + "."
    has_default = not option.positional and default is not None
    shown = f"`{show(default)}`" if has_default and str(default) else ""
    if option.is_bool and default:
        shown = ON
    anchor = anchors + option.key.replace(".", "-").replace("_", "-")
    return f"`{heading_of(option, default)}`{{ #{anchor} }}", shown, meaning
