"""Labels images from a few labels, with probabilities and "I do not know".

    siamtransfer predict runs/mine/checkpoint.pth my_images labels.csv --labels few.csv
    siamtransfer predict runs/mine/checkpoint.pth my_images labels.csv --labels sorted
    siamtransfer predict runs/mine/checkpoint.pth my_images out.csv --labels few.csv --save-head m.safetensors
    siamtransfer predict m.safetensors new_images new.csv

few.csv has the columns path and label; the folder sorted has a folder for each class. A linear classifier
learns them from frozen features. What it gets right is estimated by cross-validation and printed.
Every image has a line: its label, the probability, the runner-up, whether it is unlike all labelled images,
and the probabilities of all classes. docs/EMBEDDING.md says what the numbers mean.
"""

from __future__ import annotations

from typing import Any

from siamtransfer.cli import Command, run
from siamtransfer.embedding.config import PredictConfig


def write_predictions(config: PredictConfig) -> dict[str, Any] | None:
    """Checks the options, labels the images, and returns the record."""
    config.check()
    from siamtransfer.embedding.predict.evaluate import evaluate
    from siamtransfer.evaluation.evaluator import run_evaluator

    return run_evaluator(evaluate, config)


main = Command("predict", PredictConfig, write_predictions, __doc__)


if __name__ == "__main__":
    run(main)
