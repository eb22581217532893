"""The few-shot evaluator: logistic regression on a few labels of each class, over repeated draws."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from siamtransfer.data.subset import draw_shots
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.fewshot.config import FewshotConfig
from siamtransfer.evaluation.frozen_model import labelled_features
from siamtransfer.evaluation.linear.logistic import fit_logistic
from siamtransfer.evaluation.linear.rows import Rows
from siamtransfer.evaluation.linear.splits import TestSplit, number_classes, set_aside
from siamtransfer.evaluation.remarks import add_remarks, remarks_on
from siamtransfer.features.extract import Features
from siamtransfer.metrics.intervals import mean_and_interval
from siamtransfer.records.result import Result
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say


def evaluate(config: FewshotConfig, runtime: Runtime) -> Result | None:
    """Mean, spread and interval of top-1 over the draws, for every number of shots and strength; None on all
    ranks but the first.

    Raises:
        UserError: a class has fewer images than the fewest shots, the images have several labels each, or
            whatever reading checkpoint, images or files finds.
    """
    data = labelled_features(config.checkpoint, config, runtime)
    if not runtime.is_main:
        return None
    train, test = data.train, data.test
    if test is None:
        train, test = set_aside(train, 0)
        data.protocol |= {"test": "a fifth of train", "test_images": len(test.features)}
    assert train.labels is not None
    if train.labels.ndim == 2:
        raise UserError("eval/fewshot.py needs one label an image, and these features have several")
    many, left_out = possible_shots(config.shots, train.labels.numpy())
    add_remarks(data.protocol, [*left_out, *remarks_on(train, test, "standardised")])
    y, split = number_classes(train.labels, test)
    metrics: dict[str, float] = {}
    predictions: dict[str, np.ndarray] = {}
    for shots in many:
        for strength in config.strengths:
            name, accuracies = f"fewshot/k={shots}/C={strength:g}", []
            for repeat in range(config.repeats):
                rows = draw_shots(train.labels.numpy(), shots, repeat)
                predicted, top1 = _fit_and_score(train, y, rows, split, strength, runtime)
                accuracies.append(top1)
                predictions[f"{name}/repeat={repeat}"] = predicted
            metrics |= mean_and_interval(f"{name}/top1", accuracies)
            say(
                f"{name}: {metrics[f'{name}/top1/mean']:.2f} % ± {metrics[f'{name}/top1/std']:.2f} over "
                f"{config.repeats} draws"
            )
    protocol = {
        **data.protocol,
        "classifier": "multinomial logistic regression on standardised features, L-BFGS",
        "shots": many,
        "strengths": config.strengths,
        "repeats": config.repeats,
        "interval": "95 %, Student's t over the repeats",
    }
    return Result("fewshot", metrics, protocol, data.provenance, split.predictions(predictions))


def possible_shots(shots: Sequence[int], labels: np.ndarray) -> tuple[list[int], list[str]]:
    """The numbers of shots that the smallest class of labels int64[N] has, and a remark on the others.

    Raises:
        UserError: it has none of them.
    """
    smallest = int(np.unique(labels, return_counts=True)[1].min())
    possible = [number for number in shots if number <= smallest]
    if not possible:
        draw_shots(labels, min(shots), 0)  # which names the class
    too_many = ", ".join(str(number) for number in shots if number > smallest)
    if not too_many:
        return possible, []
    return possible, [f"--shots {too_many} is left out, for the smallest class has {smallest} images"]


def _fit_and_score(
    train: Features, y: Tensor, rows: np.ndarray, test: TestSplit, strength: float, runtime: Runtime
) -> tuple[np.ndarray, float]:
    """The labels that a fit to these rows predicts for the test split, and their top-1 in percent."""
    device = runtime.device
    classifier = fit_logistic(train.tensor[rows].to(device), y[rows].to(device), strength, standardise=True)
    predicted = test.score("draw", classifier.scores(Rows(test.features, device)))
    return predicted, test.metrics["draw/top1"]
