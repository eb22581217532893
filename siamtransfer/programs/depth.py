"""Probes the patches of a frozen backbone for depth: errors in metres without fine-tuning.

    siamtransfer depth simsiam.pth --data.name depth-rooms
    siamtransfer depth dino.pth --data.name nyu --data.root /data/nyu
    siamtransfer depth dino.pth --data.name nyu --data.root /data/nyu --probe bins --class-token
    siamtransfer depth moco.pth --data.name depth --data.root mine --data.depth-scale 256 --layers layer3

Depth maps are 16-bit PNG; --data.depth-scale is the value of a metre in them, and 0 means missing. ridge, the
default, is ridge regression of the depths of patches in closed form, minutes on a CPU; bins is the published
probe of DINOv2, 38,400 steps for a GPU. Errors are measured at the original size of the depth maps, beside
those of two guesses without an image: the mean depth of train, and its mean depth at each place.
"""

from __future__ import annotations

from typing import Any

from siamtransfer.cli import Command, run
from siamtransfer.evaluation.depth.config import DepthConfig


def evaluate_depth(config: DepthConfig) -> dict[str, Any] | None:
    """Checks the options, evaluates, and returns the record."""
    config.check()
    from siamtransfer.evaluation.depth.evaluate import evaluate
    from siamtransfer.evaluation.evaluator import run_evaluator

    return run_evaluator(evaluate, config)


main = Command("depth", DepthConfig, evaluate_depth, __doc__)


if __name__ == "__main__":
    run(main)
