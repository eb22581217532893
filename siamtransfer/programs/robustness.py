"""Scores one head on many test sets: other pictures of the same classes, and corrupted versions of them.

    siamtransfer robustness runs/demo/checkpoint.pth          14 corruptions at severities 1, 3 and 5
    siamtransfer robustness CKPT --corruptions fog jpeg_compression --severities 5
    siamtransfer robustness CKPT --data.name folder --data.root shop1 --shifted shop2=shop2 night=night
    siamtransfer robustness CKPT --data.name imagenet --data.root DIR --shifted imagenet-v2=V2 imagenet-r=R
    siamtransfer robustness CKPT --data.name imagenet --data.root DIR --shifted imagenet-c=C --severities 5
    siamtransfer robustness CKPT --head knn --record robustness.json      a record of each set beside it

The head is fitted to train once and never sees another set. Classes are matched by their names; a set with
classes that train lacks is refused. With --record OUT.json there is OUT.SET.json for every further set, by
which `siamtransfer compare` and `siamtransfer rank` hold backbones against each other on that set.
"""

from __future__ import annotations

from typing import Any

from siamtransfer.cli import Command, run
from siamtransfer.evaluation.robustness.config import RobustnessConfig


def evaluate_robustness(config: RobustnessConfig) -> dict[str, Any] | None:
    """Checks the options, evaluates, and returns the record on rank 0."""
    config.check()
    from siamtransfer.evaluation.evaluator import run_evaluator
    from siamtransfer.evaluation.robustness.evaluate import evaluate

    return run_evaluator(evaluate, config)


main = Command("robustness", RobustnessConfig, evaluate_robustness, __doc__)


if __name__ == "__main__":
    run(main)
