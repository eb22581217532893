"""Measures many backbones on many tasks with one command, and ranks them.

    siamtransfer suite moco.pth dino.pth timm:resnet50.a1_in1k --config quick
    siamtransfer suite … --config quick --data.root FOLDER       your own images, a folder for each class
    siamtransfer suite … --config transfer --data.root /data --skip-missing
    siamtransfer suite ours=runs/demo/checkpoint.pth pixels --config quick     LABEL=PATH; a baseline
    siamtransfer suite … --config my-suite.yaml --only linear    some tasks, sets or backbones
    siamtransfer suite … --config quick --dry-run                the commands, and nothing runs

A measurement is one command of another program, which writes its record to OUT/BACKBONE/CELL.json. CELL is
the task, or SET-TASK in a suite of several sets. All commands are checked before the first runs. Features are
computed once for each backbone and set. Stopped or killed, the same command goes on with what is missing;
what failed stays failed until --retry-failed. On several GPUs measurements run side by side.
`siamtransfer configs suites` lists the shipped suites, and docs/SUITE.md says how a suite is written.
"""

from __future__ import annotations

from typing import Any

from siamtransfer.cli import Command, run
from siamtransfer.suites.config import SuiteConfig


def measure(config: SuiteConfig) -> dict[str, Any] | None:
    """Checks the options, and measures or prints what would be measured."""
    from siamtransfer.suites.run import print_plan, run_suite

    if config.dry_run:
        print_plan(config)
        return None
    return run_suite(config)


main = Command("suite", SuiteConfig, measure, __doc__, kinds=("suites",))

if __name__ == "__main__":
    run(main)
