"""Scores a backbone by linear SVMs on VOC2007 classification: with all labels, or with a few of each class.

    siamtransfer svm swav.pth.tar --data.root /data                               /data/VOCdevkit/VOC2007
    siamtransfer svm swav.pth.tar --data.root /data --protocol swav
    siamtransfer svm swav.pth.tar --data.root /data --low-shot                    1, 2, 4, … 96 shots
    siamtransfer svm --train-features train.npz --test-features test.npz          labels[N,C] of 0 and 1
    siamtransfer svm runs/demo/checkpoint.pth --data.name fashion-scenes --one-hot --protocol swav

--protocol vissl (VISSL and mmselfsup; Goyal et al., arXiv 1905.01235): images squashed to 224 x 224, the last
stage averaged in 2 x 2 windows (8192 features of a ResNet-50). --protocol swav (SwAV and those after it): a
central crop and the output (2048). Each class has its SVM, whose cost is chosen by 3-fold cross-validation on
train. The score is the mean over classes of the average precision, the area under the interpolated curve,
without the images in which a class is only shown in difficult objects. Feature files may name those in an
array `ignored`[N,C].

--low-shot fits each SVM to k images that show its class and k for every other class that do not, in 5 draws.
The cost is the one with the best mAP on the images of train that were not drawn, so its choice needs more
labels than the k. The published protocol takes the one with the best mAP on test: that is reported, too, as
…/best_on_test_cost.

LIBLINEAR keeps 16 bytes for each number of the features, in every process. --memory (16 GiB) bounds how many
processes fit SVMs at once. Features that are too large for one of them are refused: --sample N fits the SVMs
to a part of every class, which the record states.
"""

from __future__ import annotations

from typing import Any

from siamtransfer.cli import Command, run
from siamtransfer.evaluation.svm.config import SvmConfig


def evaluate_svm(config: SvmConfig) -> dict[str, Any] | None:
    """Checks the options, evaluates, and returns the record on rank 0."""
    config.check()
    from siamtransfer.evaluation.evaluator import run_evaluator
    from siamtransfer.evaluation.svm.evaluate import evaluate

    return run_evaluator(evaluate, config)


main = Command("svm", SvmConfig, evaluate_svm, __doc__)


if __name__ == "__main__":
    run(main)
