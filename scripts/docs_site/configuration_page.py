"""The page of the shipped configurations."""

from __future__ import annotations

from docs_site.markdown import prose, table
from siamtransfer.cli.shipped import header_line, shipped_configs

PAGE = "configurations.md"
KINDS = {
    "pretrain": "Pretraining",
    "detection": "Detection and segmentation, fine-tuned",
    "experiments": "SimSiam's questions",
    "suites": "Suites, many backbones on many tasks",
}
"""Folder of configs/ to the heading of its table."""

INTRODUCTION = """# Shipped configurations

`--config NAME` reads one, `siamtransfer configs WORD` lists those whose names hold a word, and
`--config NAME --print-config` prints all settings. The comment on top of each file, below `configs/`, says
the command, the hardware, the expected score and its source.
"""


def configuration_page() -> str:
    """Every shipped configuration by kind, with the line that says what it is.

    Raises:
        KeyError: a folder of configs/ has no heading here.
    """
    kinds: dict[str, list[tuple[str, str]]] = {kind: [] for kind in KINDS}
    for name, file in shipped_configs().items():
        kind, _, short = name.partition("/")
        kinds[kind].append((f"`{short}`", prose(header_line(file), PAGE)))
    text = INTRODUCTION
    for kind, rows in kinds.items():
        text += f"\n## {KINDS[kind]}\n\n" + table(("Configuration", "What it is"), rows)
    return text
