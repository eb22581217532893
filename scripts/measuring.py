"""What scripts that measure many runs share: which ones, in which folder, with which options."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from pathlib import Path

from siamtransfer.utils.errors import UserError


def parser_of(description: str | None, *, kind: str, runs: str) -> argparse.ArgumentParser:
    """The command line of a script that measures runs of a `kind` below the folder `runs`."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help=f"{kind}s; without any, all; `none` for none")
    parser.add_argument("--runs", type=Path, default=Path(runs), help=f"folder of the runs (default: {runs})")
    parser.add_argument("--table", type=Path, default=None, help="markdown to write")
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="for pretrain/main.py, in every run; may be given several times",
    )
    return parser


def chosen(names: list[str], known: Collection[str], kind: str) -> list[str]:
    """Those of the `known` that were asked for.

    Raises:
        UserError: one is not known.
    """
    if names == ["none"]:
        return []
    for name in names:
        if name not in known:
            raise UserError(f"{name} is no {kind}; there are {', '.join(known)}")
    return names or list(known)
