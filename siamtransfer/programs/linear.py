"""Scores a backbone by a linear classifier on its frozen features, by a protocol with a name.

    siamtransfer linear runs/demo/checkpoint.pth                                   logistic regression
    siamtransfer linear runs/demo/checkpoint.pth --protocol sweep --augment        many classifiers at once
    siamtransfer linear checkpoint_0099.pth.tar --protocol simsiam --data.name imagenet --data.root DIR
    torchrun --nproc-per-node 8 eval/linear.py CKPT --protocol moco --data.name imagenet --data.root DIR
    siamtransfer linear --train-features train.npz --test-features test.npz

logistic: L-BFGS at 45 strengths C; the best one on a held-out tenth of train is fitted again to all of train
(for images with several labels a binary regression a class, and mAP).
sweep: classifiers of every learning rate, optimizer and selection of layers are trained at once; the best one
on a held-out tenth of train is taken. Both score the test split once.
simsiam, simsiam-paper, moco, moco-v3, swav, barlow-twins, vicreg and dino are the recipes that their authors
published, on crops and flips. The last epoch and the best one on the test split are both printed, each under
its name. Where the set has no test split, a fifth of every class is set aside as one.
"""

from __future__ import annotations

from typing import Any

from siamtransfer.cli import Command, run
from siamtransfer.evaluation.linear.config import LinearConfig


def evaluate_linear(config: LinearConfig) -> dict[str, Any] | None:
    """Checks the options, evaluates, and returns the record on rank 0."""
    config.check()
    from siamtransfer.evaluation.evaluator import run_evaluator
    from siamtransfer.evaluation.linear.evaluate import evaluate

    return run_evaluator(evaluate, config)


main = Command("linear", LinearConfig, evaluate_linear, __doc__)


if __name__ == "__main__":
    run(main)
