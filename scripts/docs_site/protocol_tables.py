"""Tables of the evaluation protocols, from the tables by which the programs run.

A page asks for one by a comment of its own, which a reader of the file on GitHub does not see:

    <!-- settings: knn k temperature metric -->     options of a program with their defaults
    <!-- table: linear -->                          a table of this module, by name
"""

from __future__ import annotations

import re
from collections.abc import Callable

from docs_site.markdown import prose, table
from docs_site.options import options_table
from siamtransfer.cli.main import program
from siamtransfer.cli.shipped import header_line, shipped_configs
from siamtransfer.evaluation.finetuning import FINETUNING
from siamtransfer.evaluation.linear.protocols import PUBLISHED
from siamtransfer.utils.errors import UserError

_REQUEST = re.compile(r"<!-- (settings|table): (.+?) -->")
_MISSPELT = re.compile(r"<!--\s*(settings?|tables?)\b[^>]*-->", re.IGNORECASE)


def fill(markdown: str, page: str) -> str:
    """The page's Markdown with every table that it asks for.

    Raises:
        ValueError: a request is misspelt, or there is no such table, program or option; names page and
            request.
    """

    def write(match: re.Match[str]) -> str:
        kind, words = match[1], match[2].split()
        try:
            return settings_table(words[0], words[1:], page) if kind == "settings" else TABLES[words[0]](page)
        except (KeyError, UserError) as error:
            raise ValueError(f"{page}: {match[0]} asks for what there is not: {error}") from error

    filled = _REQUEST.sub(write, markdown)
    if misspelt := _MISSPELT.search(filled):
        raise ValueError(f"{page}: {misspelt[0]} is no request; write <!-- settings: PROGRAM OPTION ... -->")
    return filled


def settings_table(name: str, keys: list[str], page: str) -> str:
    """Options of a program by their keys (`batch_size`, `data.name`), with the defaults in effect."""
    options, defaults = program(name).described()
    by_key = {option.key: option for option in options}
    return options_table([by_key[key] for key in keys], defaults, page, anchors=f"{name}-")


def linear_table(page: str) -> str:
    """The published linear probes."""
    rows = []
    for name, protocol in PUBLISHED.items():
        rate = f"{protocol.lr:g}" + (f" (ViTs {protocol.vit_lr:g})" if protocol.vit_lr else "")
        rows.append(
            (f"`{name}`", protocol.optimizer.upper(), rate, f"{protocol.weight_decay:g}",
             str(protocol.batch_size), str(protocol.epochs), _schedule(protocol.milestones, 0.1),
             prose(protocol.source, page))
        )  # fmt: skip
    head = ("Protocol", "Optimizer", "Rate at 256", "Decay", "Batch", "Epochs", "Schedule", "Source")
    return table(head, rows)


def semisup_table(page: str) -> str:
    """The published recipes of fine-tuning on few labels."""
    rows = []
    for name, recipe in FINETUNING.items():
        for percent, (backbone, classifier) in recipe.rates.items():
            rows.append(
                (f"`{name}`", f"{percent} %", f"{backbone:g}", f"{classifier:g}", str(recipe.batch),
                 str(recipe.epochs.get(percent, max(recipe.epochs.values()))), f"{recipe.weight_decay:g}",
                 _schedule(recipe.milestones, recipe.gamma), prose(recipe.source, page))
            )  # fmt: skip
    head = (
        "Recipe", "Labels", "Backbone's rate", "Classifier's rate", "Batch", "Epochs", "Decay", "Schedule",
        "Source",
    )  # fmt: skip
    return table(head, rows)


def detection_table(page: str) -> str:
    """The shipped configurations of detection and segmentation by fine-tuning, but for layers and demos."""
    rows = [
        (f"`{name.removeprefix('detection/')}`", prose(header_line(file), page))
        for name, file in shipped_configs().items()
        if name.startswith("detection/") and not re.search(r"/(base|scenes)-", name)
    ]
    return table(("Configuration", "What it is"), rows)


TABLES: dict[str, Callable[[str], str]] = {
    "linear": linear_table,
    "semisup": semisup_table,
    "detection": detection_table,
}


def _schedule(milestones: tuple[int, ...], gamma: float) -> str:
    if not milestones:
        return "cosine, per epoch"
    return f"× {gamma:g} at {', '.join(map(str, milestones))}"
