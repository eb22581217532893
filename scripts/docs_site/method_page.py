"""The page of the methods: what each is, its loss, options and shipped configurations."""

from __future__ import annotations

import inspect
import sys

import yaml

from docs_site.markdown import docstring, prose, table
from docs_site.options import options_table
from siamtransfer.cli.options import options_of
from siamtransfer.cli.shipped import header_line, shipped_configs
from siamtransfer.methods.registry import METHODS, section_of

PAGE = "methods.md"
INTRODUCTION = """# Methods

`--method.name NAME` chooses a method, and its options are in the section of its name:
`siamtransfer pretrain --help NAME` lists them. A method of your own is one file:
[Adding a method](adding-a-method.md). What the methods reached on the embedded images is in
[Results](RESULTS.md).

In the losses, f is the backbone, g the projector, h the predictor, n(·) scales to unit length, and
stop(·) lets no gradient through.

"""


def method_page() -> str:
    """A table of all methods, and a section for each."""
    configs = _configs_by_method()
    rows = [(f"[`{name}`](#{name})", _paper(name), str(len(configs.get(name, ())))) for name in METHODS]
    head = ("Method", "Source", "Shipped configurations")
    return (
        INTRODUCTION + table(head, rows) + "".join(_section(name, configs.get(name, {})) for name in METHODS)
    )


def _section(name: str, configs: dict[str, str]) -> str:
    method = METHODS[name]
    section = section_of(name)
    what = prose(_one_line(method.Config.__doc__), PAGE)
    parts = [
        f"\n## {name}",
        docstring(_module_doc(name), PAGE),
        "**Loss.** " + docstring(inspect.getdoc(method) or "", PAGE),
        f"**Options** (`--{section.replace('_', '-')}.…`). {what}",
        options_table(options_of(method.Config, f"{section}."), {}, PAGE),
    ]
    if configs:
        rows = [(f"`{config}`", prose(what, PAGE)) for config, what in configs.items()]
        parts += ["**Shipped configurations**", table(("Configuration", "What it is"), rows)]
    return "\n\n".join(parts) + "\n"


def _module_doc(name: str) -> str:
    return inspect.cleandoc(sys.modules[METHODS[name].__module__].__doc__ or "")


def _paper(name: str) -> str:
    """The first paragraph of the module's docstring, which names the paper."""
    return prose(_one_line(_module_doc(name).partition("\n\n")[0]), PAGE)


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def _configs_by_method() -> dict[str, dict[str, str]]:
    """Method to the shipped configurations of pretraining that name it, each with what it is."""
    found: dict[str, dict[str, str]] = {}
    for name, file in shipped_configs().items():
        if not name.startswith("pretrain/"):
            continue
        tree = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        method = tree.get("method", {}).get("name", "simsiam")
        found.setdefault(method, {})[name.removeprefix("pretrain/")] = header_line(file)
    return found
