"""What measuring scripts share: calls of programs, which runs they measure, how their numbers are told."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from siamtransfer.utils.children import run_child
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say

HERE = Path(__file__).resolve().parents[1]


def stage(program: str, *arguments: object) -> dict[str, Any]:
    """Runs one program with its words to people passed through; returns its JSON document.

    Raises:
        SystemExit: it did not end well, or a signal ended it; with its status.
    """
    command = [sys.executable, str(HERE / program), *map(str, arguments)]
    say(f"\n$ python {program} {' '.join(map(str, arguments))}")
    done = run_child(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    return json.loads(done.stdout.splitlines()[-1])


def pretrained_in(run: Path) -> Path:
    """The checkpoint of `make demo` in the folder `run`.

    Raises:
        UserError: there is none.
    """
    checkpoint = run / "checkpoint.pth"
    if not checkpoint.exists():
        raise UserError(
            f"there is no pretrained {checkpoint}: run `make demo` first, or name its folder by --run"
        )
    return checkpoint


def mean_and_std(results: Mapping[str, float], metric: str) -> str:
    """Mean and standard deviation of several trials, or the value of one."""
    if f"{metric}/mean" not in results:
        return f"{results[metric]:.2f}"
    return f"{results[f'{metric}/mean']:.2f} ± {results[f'{metric}/std']:.2f}"


def difference_over_trials(results: Mapping[str, float], metric: str) -> str:
    """The paired difference of two initializations, and its 95 % interval over the trials."""
    key = f"compare/{metric}"
    low, high = results.get(f"{key}/ci95_low"), results.get(f"{key}/ci95_high")
    interval = f"{low:+.2f} to {high:+.2f}" if low is not None else "needs two trials or more"
    return f"{results[f'{key}/difference']:>+13.2f}   {interval}"


def parser_of(description: str | None, *, kind: str, runs: str) -> argparse.ArgumentParser:
    """The command line of a script that measures runs of a `kind` below the folder `runs`."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help=f"{kind}s; without any, all; `none` for none")
    parser.add_argument("--runs", type=Path, default=Path(runs), help=f"folder of the runs (default: {runs})")
    parser.add_argument("--table", type=Path, default=None, help="markdown to write")
    take_options(parser)
    return parser


def take_options(parser: argparse.ArgumentParser) -> None:
    """Lets a command line take settings for every run that it makes."""
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="for pretrain/main.py, in every run; may be given several times",
    )


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
