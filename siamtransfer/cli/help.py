"""The help of a program: what it does, the options that most users need, and on demand all of them by
section."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from siamtransfer.cli.options import Option, section_doc

JSON_HELP = "Print the record as one line of JSON on a terminal, too, where it is a table."
TABLE_HELP = "--no-json prints the table everywhere; SIAMTRANSFER_OUTPUT=json or table chooses for good."
ON = "on; this turns it off"
"""The default of a switch that is on, whose heading is the word that turns it off."""
COLUMN = 30
"""Where the explanations begin."""


def program_name(name: str) -> str:
    """How the program was called: `python eval/knn.py`, or `siamtransfer knn`."""
    script = Path(sys.argv[0])
    is_door = script.suffix == ".py" and script.name != "__main__.py"
    return f"python {script.parent.name}/{script.name}" if is_door else f"siamtransfer {name}"


def short_help(name: str, doc: str, options: list[Option], defaults: dict[str, Any], more: str = "") -> str:
    """Usage, description and the common options; the number of the others."""
    common = sorted(
        (o for o in options if o.common is not None and not o.positional), key=lambda o: o.common or 0
    )
    common = [option for option in options if option.positional] + common
    hidden = len(options) - len(common)
    lines = [usage(name, options), "", doc.strip(), "", "Common options:", *_rows(common, defaults)]
    if all(option.key != "config" for option in options):
        lines += _row("--config FILE", "YAML file of settings, or a shipped one by name; may be repeated.")
    if all(option.key != "json" for option in options):
        lines += _row("--json", JSON_HELP)
    if more:
        lines += ["", *textwrap.wrap(more, _width())]
    if hidden:
        lines += ["", f"--help-all lists {hidden} more options."]
    return "\n".join(lines)


def full_help(name: str, doc: str, options: list[Option], defaults: dict[str, Any], more: str = "") -> str:
    """Usage, description and every option, section by section."""
    lines = [usage(name, options), "", doc.strip()]
    sections = dict.fromkeys(option.key.rpartition(".")[0] for option in options)
    for section in sections:
        own = [option for option in options if option.key.rpartition(".")[0] == section]
        title = f"{section}: {section_doc(own[0].section)}" if section else "Options:"
        lines += ["", *textwrap.wrap(title, _width()), *_rows(own, defaults)]
    lines += ["", "Files and help:"]
    if all(option.key != "config" for option in options):
        lines += _row("--config FILE", "YAML file of settings, or a shipped one by name; may be repeated.")
    lines += _row("--print-config", "Print the settings as YAML, and stop.")
    if all(option.key != "json" for option in options):
        lines += _row("--json, --no-json", f"{JSON_HELP} {TABLE_HELP}")
    lines += _row("--help, --help-all", "Print the common options, or all of them.")
    if more:
        lines += ["", *textwrap.wrap(more, _width())]
    return "\n".join(lines)


def section_help(section: str, options: list[Option]) -> str:
    """The options of one section."""
    title = textwrap.wrap(f"{section}: {section_doc(options[0].section)}", _width())
    return "\n".join([*title, *_rows(options, {})])


def show(value: Any) -> str:
    """A default as a user would type it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        shown = [show(item) for item in value]
        if len(shown) > 8:
            shown = [*shown[:3], "…", shown[-1]]
        return " ".join(shown) if shown else "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def usage(name: str, options: list[Option]) -> str:
    """The line that says how the program is called: its name, the words without a flag, then options."""
    places = [
        f"[{option.key.upper()}{' ...' if option.item else ''}]" for option in options if option.positional
    ]
    return " ".join(["usage:", program_name(name), *places, "[--option VALUE ...]"])


def heading_of(option: Option, default: Any) -> str:
    """What a user types for the option: `CHECKPOINT`, `--k INT ...`; of a switch that is on, the word that
    turns it off."""
    if option.positional:
        return option.key.upper()
    if option.is_bool and default:
        section, _, last = option.key.rpartition(".")
        return "--" + ".".join(filter(None, [section, f"no_{last}"])).replace("_", "-")
    return f"{option.flag} {option.metavar}".strip()


def _rows(options: Iterable[Option], defaults: dict[str, Any]) -> list[str]:
    rows = []
    for option in options:
        default = defaults.get(option.key, option.default)
        text = option.help
        if option.is_bool and default:
            text += f" [{ON}]"
        elif not (option.positional or option.is_bool or default is None):
            text += f" [{show(default)}]"
        if option.choices:
            text += f" One of {', '.join(option.choices)}."
        rows += _row(heading_of(option, default), text)
    return rows


def _row(heading: str, text: str) -> list[str]:
    wrapped = textwrap.wrap(text, max(_width() - COLUMN, 30)) or [""]
    if len(heading) + 2 < COLUMN:
        first = f"  {heading}".ljust(COLUMN) + wrapped[0]
        return [first, *(" " * COLUMN + line for line in wrapped[1:])]
    return [f"  {heading}", *(" " * COLUMN + line for line in wrapped)]


def _width() -> int:
    return min(max(shutil.get_terminal_size((110, 24)).columns, 70), 120)
