"""Measures whether a backbone tells unknown images from known ones, and whether its confidences are right.

    siamtransfer outside runs/demo/checkpoint.pth --outside noise unknown=FOLDER
    siamtransfer outside CKPT --data.name pets --data.root data/pets --outside dtd=data/dtd mine=my_images
    siamtransfer outside CKPT --data.name cifar10 --data.root data --hold-out cat dog
    siamtransfer outside --train-features a.npz --test-features b.npz --outside other=c.npz

A linear head is fitted to the frozen features of train, as by `linear --protocol logistic`. Seven scores of
the literature say how known each image looks; AUROC, AUPR and the false positives at 95 % true positives say
how well they tell the test images from those of each outside set. The head's confidences are compared with
how often it is right, as it is and with a temperature that a part of train chooses. With --record a.json each
set has a record of its own beside it, a.SET.json. docs/ROBUSTNESS.md says what the numbers mean.
"""

from __future__ import annotations

from typing import Any

from siamtransfer.cli import Command, run
from siamtransfer.evaluation.outside.config import OutsideConfig


def evaluate_outside(config: OutsideConfig) -> dict[str, Any] | None:
    """Checks the options, evaluates, and returns the record on rank 0."""
    config.check()
    from siamtransfer.evaluation.evaluator import run_evaluator
    from siamtransfer.evaluation.outside.evaluate import evaluate

    return run_evaluator(evaluate, config)


main = Command("outside", OutsideConfig, evaluate_outside, __doc__)


if __name__ == "__main__":
    run(main)
