"""ImageNet rehearsed without ImageNet and without a GPU.

    python -m benchmarks.rehearsal                                   all of it: an hour or two on two cores
    python -m benchmarks.rehearsal --stages configurations --configurations imagenet-resnet50-swav-800ep
    python -m benchmarks.rehearsal --images 3000 --queries 200 --classes 10 --bank 500 --share 4    minutes

The tree has ImageNet's names (1,281,167 + 50,000 hard links to 300 JPEG files of 500 x 375 pixels). The
configurations are the shipped ones, with ResNets of width 16 and a ViT-Ti. A process is one rank and takes
the share of images that the configuration's header states. Every configuration takes a few steps, is stopped
by SIGTERM, resumes, and takes one more. SimSiam's also makes its kNN baselines, two checks of a full bank,
alone and as two ranks. kNN and the logistic probe then run on feature files of the full counts in two widths,
so that memory and time at 2048 numbers an image can be calculated.

A rank that uses more than --limit GiB of host memory is killed, and the rehearsal fails. Memory that
processes share is divided among them. Device memory is counted at full width (see device_memory.py). Prints
a table for each stage and, last, one line of JSON; exits with status 1 when something failed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.data_path import cpu_name
from benchmarks.rehearsal.configurations import Rehearsal, configuration_names
from benchmarks.rehearsal.stages import STAGES, Row
from siamtransfer.records.record import record
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.strict_json import to_json


def main(argv: list[str] | None = None) -> int:
    """Runs the stages; returns the exit status."""
    arguments = _parser().parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        rehearsal = Rehearsal(
            folder=(arguments.folder or Path(temporary)).absolute(),
            images=arguments.images,
            queries=arguments.queries,
            classes=arguments.classes,
            share=arguments.share,
            steps=arguments.steps,
            bank=arguments.bank,
            limit=arguments.limit,
        )
        more: dict[str, tuple[Any, ...]] = {
            "configurations": (arguments.configurations,),
            "checkpoint": (arguments.evaluated,),
            "features": (tuple(arguments.dims),),
        }
        tables: dict[str, list[Row]] = {}
        for stage in arguments.stages:
            print(f"\n{stage}", flush=True)
            tables[stage] = []
            for row in _rows(rehearsal, stage, *more.get(stage, ())):
                tables[stage].append(row)
                print(_line(row), flush=True)
    failures = [row for table in tables.values() for row in table if "failed" in row]
    metrics = {
        f"rehearsal/{stage}/{row['what'].replace(' ', '_')}/{key}": value
        for stage, table in tables.items()
        for row in table
        for key, value in row.items()
        if isinstance(value, int | float)
    }
    protocol = {
        key: str(value) if isinstance(value, Path) else value for key, value in vars(arguments).items()
    }
    protocol["failures"] = [f"{row['what']}: {row['failed']}" for row in failures]
    print(to_json(record("rehearsal", metrics, protocol, cpu=cpu_name())))
    return int(bool(failures))


def _rows(rehearsal: Rehearsal, stage: str, *arguments: Any) -> Iterator[Row]:
    """The rows of a stage; what stops it is its last one."""
    try:
        yield from STAGES[stage](rehearsal, *arguments)
    except UserError as error:
        yield {"what": stage, "failed": str(error)}


def _line(row: Row) -> str:
    numbers = [
        f"{key} {value:.4g}"
        for key, value in row.items()
        if isinstance(value, int | float) and value is not None
    ]
    return f"  {row['what']:44} {'  '.join(numbers)}{'  FAILED: ' + row['failed'] if 'failed' in row else ''}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rehearsal",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--stages",
        nargs="+",
        choices=list(STAGES),
        default=list(STAGES),
        help="in this order; all by default",
    )
    add("--configurations", nargs="+", choices=configuration_names(), default=[], metavar="NAME")
    add(
        "--folder", type=Path, help="keep the tree, the runs and the logs there (default: a temporary folder)"
    )
    add("--images", type=int, default=1_281_167, help="training images (default: ImageNet's)")
    add("--queries", type=int, default=50_000, help="validation images (default: ImageNet's)")
    add("--classes", type=int, default=1000)
    add("--share", type=int, help="images of a rank in a step (default: the configuration's header)")
    add("--steps", type=int, default=2, help="steps before SIGTERM (default 2)")
    add("--bank", type=int, help="images in the bank of the kNN check (default: the configuration's)")
    add("--limit", type=float, default=16.0, help="GiB of host memory a rank (default 16)")
    add("--dims", type=int, nargs=2, default=[32, 64], help="widths of the feature files (default 32 64)")
    add(
        "--evaluated", type=int, default=20_000, help="training images through the checkpoint (default 20000)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
