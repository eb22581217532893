"""Scores a backbone by weighted k-nearest-neighbour voting (Wu et al. 2018), exactly.

    siamtransfer knn runs/demo/checkpoint.pth
    siamtransfer knn checkpoint_0099.pth.tar --data.name imagenet --data.root /data/imagenet --k 20 200
    siamtransfer knn --train-features train.npz --test-features test.npz        features of any framework
    siamtransfer knn random:resnet50 --data.name cifar10 --data.root data       an untrained baseline
    siamtransfer knn torchvision:resnet50 --data.name cifar10 --data.root data  a supervised baseline
    siamtransfer knn runs/demo/checkpoint.pth --neighbours grid.png             a picture of the neighbours
    siamtransfer knn runs/demo/checkpoint.pth --record knn.json                 keeps record and predictions

One search at the largest k serves every k, temperature and way of voting. Where the set has no test split,
every image is scored against all others (leave-one-out). Labels[N,C] of 0 and 1 in feature files give mAP.
"""

from __future__ import annotations

from typing import Any

from siamtransfer.cli import Command, run
from siamtransfer.evaluation.knn.config import KnnConfig


def evaluate_knn(config: KnnConfig) -> dict[str, Any] | None:
    """Checks the options, evaluates, and returns the record on rank 0."""
    config.check()
    from siamtransfer.evaluation.evaluator import run_evaluator
    from siamtransfer.evaluation.knn.evaluate import evaluate

    return run_evaluator(evaluate, config)


main = Command("knn", KnnConfig, evaluate_knn, __doc__)


if __name__ == "__main__":
    run(main)
