"""A page for every program of the command line, and one that lists them."""

from __future__ import annotations

import inspect
import re

from docs_site.markdown import ROOT, docstring, prose, table
from docs_site.options import options_table
from siamtransfer.cli.help import usage
from siamtransfer.cli.main import PROGRAMS, program
from siamtransfer.cli.options import Option, section_doc

FOLDERS = ("pretrain", "eval", "convert")
"""Folders of the files by which programs are called in a checkout."""

FIRST_IN_SEARCH = """---
search:
  boost: 3
---"""
PROGRAMS_INTRODUCTION = """# Programs

`siamtransfer PROGRAM` and the files of the repository are the same: `siamtransfer knn` is
`python eval/knn.py`. Every program ends with its record: metrics, protocol, provenance. On a terminal it is a
[table](../NUMBERS.md), elsewhere one JSON document as the last line of stdout. `siamtransfer configs` lists
the [shipped configurations](../configurations.md), and `source <(siamtransfer completion bash)` completes
programs and options in a shell.

"""
SETTINGS = """Lists are `--k 5 20`, switches `--augment` and `--no-augment`. `--config FILE` reads settings
from YAML, a file or a [shipped configuration](../configurations.md) by name, and may be repeated; what comes
later wins. `--print-config` prints the settings and stops. A wrong key names the nearest one.
"""


def page_of(name: str) -> str:
    """The path of a program's page."""
    return f"programs/{name}.md"


def doors() -> dict[str, str]:
    """Program to the file of the checkout that runs it, such as eval/knn.py; some have none."""
    found = {}
    for folder in FOLDERS:
        for file in sorted((ROOT / folder).glob("*.py")):
            if match := re.search(r"siamtransfer\.programs\.(\w+) import", file.read_text(encoding="utf-8")):
                found[match[1].replace("_", "-")] = f"{folder}/{file.name}"
    return found


def program_page(name: str) -> str:
    """What the program does, how it is called, and every option with its default."""
    page, command = page_of(name), program(name)
    options, defaults = command.described()
    own = [option for option in options if option.positional]
    own += sorted(
        (o for o in options if o.common is not None and not o.positional), key=lambda o: o.common or 0
    )
    parts = [
        FIRST_IN_SEARCH,
        f"# siamtransfer {name}",
        docstring(inspect.cleandoc(command.doc), page),
        _called(name, options),
        "## Common options",
        "`siamtransfer " + name + " --help` shows these.",
        options_table(own, defaults, page),
    ]
    rest = [option for option in options if option not in own]
    if rest:
        parts += ["## More options", f"`siamtransfer {name} --help-all` shows these, too."]
    for section in dict.fromkeys(option.key.rpartition(".")[0] for option in rest):
        rows = [option for option in rest if option.key.rpartition(".")[0] == section]
        if section:
            parts += [f"### {section}", prose(section_doc(rows[0].section), page)]
        parts.append(options_table(rows, defaults, page))
    more = getattr(command.config, "more_help", str)()
    parts += ["## Settings and help", prose(more, page), _general(command.default_config)]
    return "\n\n".join(parts)


def programs_page() -> str:
    """The list of all programs."""
    files = doors()
    rows = [
        (
            f"[`{name}`]({name}.md)",
            prose(what, "programs/index.md"),
            f"`{files[name]}`" if name in files else "",
        )
        for name, what in PROGRAMS.items()
    ]
    return PROGRAMS_INTRODUCTION + table(("Program", "What it does", "File"), rows)


def _called(name: str, options: list[Option]) -> str:
    lines = ["```text", usage(name, options).removeprefix("usage: "), "```"]
    door = doors().get(name)
    return "\n".join(lines) + (f"\n\nIn a checkout it is also `python {door}`." if door else "")


def _general(default_config: str | None) -> str:
    text = SETTINGS
    if default_config:
        text += (
            f"\nThe defaults above are those of the shipped configuration `{default_config}`, which is read "
            "where nothing else is said.\n"
        )
    return text
