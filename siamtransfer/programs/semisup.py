"""Fine-tunes a whole backbone with a linear classifier on few labels, or on all of them.

    siamtransfer semisup CKPT --percent 1 --data.name imagenet --data.root DIR --data.list-file 1percent.txt
    siamtransfer semisup CKPT --percent 10 --protocol barlow-twins --lrs 0.005 0.5 …
    siamtransfer semisup runs/demo/checkpoint.pth --percent 100 --protocol ours

The labelled images are those of --data.list-file, or a class-balanced part of train that --seed draws. The
recipes are the published ones, on crops and flips, with batch norm in train mode. The last epoch and the best
one on the test split are both printed, each under its name. Where the authors give no learning rates for a
percentage, --lrs must.
"""

from __future__ import annotations

from typing import Any

from siamtransfer.cli import Command, run
from siamtransfer.evaluation.semisup.config import SemisupConfig


def evaluate_semisup(config: SemisupConfig) -> dict[str, Any] | None:
    """Checks the options, evaluates, and returns the record on rank 0."""
    config.check()
    from siamtransfer.evaluation.evaluator import run_evaluator
    from siamtransfer.evaluation.semisup.evaluate import evaluate

    return run_evaluator(evaluate, config)


main = Command("semisup", SemisupConfig, evaluate_semisup, __doc__)


if __name__ == "__main__":
    run(main)
