"""Measures how far a backbone's features move when its images are turned, cut, coloured, blurred or hidden.

    siamtransfer invariance runs/demo/checkpoint.pth --figure invariance.png
    siamtransfer invariance CKPT --transformations rotation hue blur=1,2,4        some; strengths of yours
    siamtransfer invariance CKPT --data.name imagenet --data.root DIR --images 1000 --bank 0
    siamtransfer invariance torchvision:resnet50 --data.name folder --data.root shop --examples examples.png
    siamtransfer invariance CKPT --record invariance.json

For every transformation and strength: the cosine of the features of an image and of its version; their
distance over that of two images of different classes (relative: 0 is invariant, 1 as far as another class);
and how often the nearest training images still name the class (top1). Raw pixels and the untrained network
are measured on the same versions, and the record has the differences with paired intervals.
"""

from __future__ import annotations

from typing import Any

from siamtransfer.cli import Command, run
from siamtransfer.evaluation.invariance.config import InvarianceConfig


def evaluate_invariance(config: InvarianceConfig) -> dict[str, Any] | None:
    """Checks the options, evaluates, and returns the record on rank 0."""
    config.check()
    from siamtransfer.evaluation.evaluator import run_evaluator
    from siamtransfer.evaluation.invariance.evaluate import evaluate

    return run_evaluator(evaluate, config)


main = Command("invariance", InvarianceConfig, evaluate_invariance, __doc__)


if __name__ == "__main__":
    run(main)
