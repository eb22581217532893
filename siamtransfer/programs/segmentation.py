"""Probes the patches of a frozen backbone for semantic segmentation: mIoU without fine-tuning.

    siamtransfer segmentation simsiam.pth --data.name fashion-scenes
    siamtransfer segmentation dino.pth --data.name voc2012 --data.root /data/VOCdevkit --size 448
    siamtransfer segmentation moco.pth --data.name masks --data.root mine --layers layer3 --probe linear

Patches of the train split, labelled by the classes of their pixels, fit each --probe. Its scores on the map
of a scored image are enlarged bilinearly to the mask's ORIGINAL size, where pixels are counted. The record
states the size of the input, how images and masks were resized, and where the score was taken: without
these, two mIoU cannot be compared.
"""

from __future__ import annotations

from typing import Any

from siamtransfer.cli import Command, run
from siamtransfer.evaluation.segmentation.config import SegmentationConfig


def evaluate_segmentation(config: SegmentationConfig) -> dict[str, Any] | None:
    """Checks the options, evaluates, and returns the record."""
    config.check()
    from siamtransfer.evaluation.evaluator import run_evaluator
    from siamtransfer.evaluation.segmentation.evaluate import evaluate

    return run_evaluator(evaluate, config)


main = Command("segmentation", SegmentationConfig, evaluate_segmentation, __doc__)


if __name__ == "__main__":
    run(main)
