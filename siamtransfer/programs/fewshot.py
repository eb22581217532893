"""Scores a backbone with a few labels of each class: repeated draws, their mean, spread and interval.

    siamtransfer fewshot runs/demo/checkpoint.pth --shots 1 5 20 --repeats 10
    siamtransfer fewshot --train-features train.npz --test-features test.npz --shots 1 5

Every repeat draws images of each class by its number, fits multinomial logistic regression to their
standardised features, and scores the whole test split. So few labels leave none to choose a strength by:
--strengths are fixed beforehand, and each is reported under its own name.
"""

from __future__ import annotations

from typing import Any

from siamtransfer.cli import Command, run
from siamtransfer.evaluation.fewshot.config import FewshotConfig


def evaluate_fewshot(config: FewshotConfig) -> dict[str, Any] | None:
    """Checks the options, evaluates, and returns the record on rank 0."""
    config.check()
    from siamtransfer.evaluation.evaluator import run_evaluator
    from siamtransfer.evaluation.fewshot.evaluate import evaluate

    return run_evaluator(evaluate, config)


main = Command("fewshot", FewshotConfig, evaluate_fewshot, __doc__)


if __name__ == "__main__":
    run(main)
