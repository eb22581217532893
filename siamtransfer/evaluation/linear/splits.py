"""The split that a classifier is scored on, with labels in the train split's numbering.

Legend: N samples, D features, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from siamtransfer.data import ImageSet
from siamtransfer.evaluation.linear.classifier_bank import ROWS_PER_CHUNK
from siamtransfer.evaluation.linear.logistic import split_by_class
from siamtransfer.features.extract import Features
from siamtransfer.metrics.accuracy import bootstrap_interval, mean_per_class
from siamtransfer.records.predictions import Predictions
from siamtransfer.utils.errors import UserError

TEST_FRACTION = 0.2
"""What is set aside of train as a test split, where a set has none."""


@dataclass
class TestSplit:
    """The test split: features of all layers[N, D] and `labels` int64[N], a number from 0 for each class of
    the train split and -1 for a class that train does not have. `values` int64[K] are the original labels by
    that number; `metrics` collects the scores, and `confidences` float32[N] the softmax of each prediction,
    by the same names."""

    __test__ = False  # pytest collects classes of this prefix

    features: Tensor
    labels: Tensor
    values: Tensor
    metrics: dict[str, float] = field(default_factory=dict)
    confidences: dict[str, np.ndarray] = field(default_factory=dict)

    def score(self, name: str, scores: Tensor) -> np.ndarray:
        """Enters top-1, top-5, the mean over classes and the interval of scores[N, K] under `name`; returns
        the predicted labels int64[N], in the original numbering.

        Raises:
            UserError: a score is not finite.
        """
        best, indices = scores.topk(min(5, scores.shape[1]), dim=1)
        pairs = zip(scores.split(ROWS_PER_CHUNK), best.split(ROWS_PER_CHUNK), strict=True)
        total = torch.cat([(chunk - highest[:, :1]).exp().sum(dim=1) for chunk, highest in pairs])
        if not bool(total.isfinite().all()):
            raise UserError(
                "a score of the classifier is not finite: lower the learning rate, or look at the features"
            )
        self.confidences[name] = total.reciprocal().float().cpu().numpy()
        ranked = indices.cpu()
        hits = ranked == self.labels.cpu()[:, None]
        low, high = bootstrap_interval(hits[:, 0])
        classes = torch.unique(self.labels.cpu(), return_inverse=True)[1]
        self.metrics |= {
            f"{name}/top1": 100 * float(hits[:, 0].double().mean()),
            f"{name}/top5": 100 * float(hits.any(dim=1).double().mean()),
            f"{name}/mean_per_class": mean_per_class(hits[:, 0], classes),
            f"{name}/ci95_low": low,
            f"{name}/ci95_high": high,
        }
        return self.values[ranked[:, 0]].numpy()

    def predictions(self, settings: dict[str, np.ndarray]) -> Predictions:
        """What `score` returned, by name, as the file beside a record has it; with the confidences of the
        settings that were scored under these names."""
        confidences = {name: self.confidences[name] for name in settings if name in self.confidences}
        return Predictions(self.original_labels(), settings, confidences)

    def original_labels(self) -> np.ndarray:
        """int64[N]: the labels as the set has them, -1 for a class that train does not have."""
        return torch.where(self.labels < 0, -1, self.values[self.labels.clamp(min=0)]).numpy()


def single_labels(images: ImageSet) -> Tensor:
    """int64[N] of a labelled set.

    Raises:
        UserError: its images have several labels each.
    """
    assert images.labels is not None
    if images.labels.ndim == 2:
        raise UserError(f"{images.name} has several labels an image, and one is needed: take eval/svm.py")
    return torch.from_numpy(np.ascontiguousarray(images.labels))


def set_aside(train: Features, seed: int) -> tuple[Features, Features]:
    """(rest, test) of a set without a test split: TEST_FRACTION of every class, by `seed`, becomes one."""
    assert train.labels is not None
    rest, test = (
        Features(train.tensor[rows], train.labels[rows])
        for rows in split_by_class(train.labels, TEST_FRACTION, seed)
    )
    return rest, test


def number_classes(train_labels: Tensor, test: Features) -> tuple[Tensor, TestSplit]:
    """The train split's labels int64[N] as numbers from 0, and the test split in the same numbering.

    Raises:
        UserError: train has fewer than two classes.
    """
    assert test.labels is not None
    values, y = torch.unique(train_labels, return_inverse=True)
    if len(values) < 2:
        raise UserError("a linear probe needs labels of at least two classes in the train split")
    numbers = torch.searchsorted(values, test.labels).clamp(max=len(values) - 1)
    return y, TestSplit(test.tensor, torch.where(values[numbers] == test.labels, numbers, -1), values)
