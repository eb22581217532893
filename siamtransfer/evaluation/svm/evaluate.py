"""The SVM evaluator: features of VOC2007 (or another set, or files) as a protocol has them, and their
scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from siamtransfer.data.subset import draw_by_class
from siamtransfer.data.voc import ignored_of
from siamtransfer.distributed.runtime import Runtime, cpu_count
from siamtransfer.evaluation.evaluator import say_metrics
from siamtransfer.evaluation.frozen_model import LabelledFeatures, labelled_features, open_frozen_model
from siamtransfer.evaluation.remarks import add_remarks, remarks_on
from siamtransfer.evaluation.svm.config import SHOTS, SvmConfig
from siamtransfer.evaluation.svm.memory import jobs_within
from siamtransfer.evaluation.svm.pooled_features import WINDOWS, pool_in_windows
from siamtransfer.evaluation.svm.svm import FullScores, SvmSplit, score_full, score_low_shot
from siamtransfer.metrics.average_precision import eleven_points, mean_average_precision
from siamtransfer.records.predictions import Predictions
from siamtransfer.records.result import Result
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say


def evaluate(config: SvmConfig, runtime: Runtime) -> Result | None:
    """mAP with all labels and AP of every class, or mAP of the low-shot benchmark; None on all ranks but the
    first.

    Raises:
        UserError: the labels are not of the kind that the options say, a class has too few images, or
        whatever
            reading checkpoint, images or files finds.
    """
    data = open_features(config, runtime)
    if not runtime.is_main:
        return None
    images, dim = data.train.features.shape
    jobs = jobs_within(
        config.memory, min(images, config.sample or images), dim, config.jobs or cpu_count()
    )  # before any copy of the features
    train, test, names = svm_splits(data, config)
    add_remarks(data.protocol, remarks_on(data.train, data.test, "svm"))
    say(f"fitting the SVMs of {len(names)} classes, {jobs} at once (--jobs, --memory {config.memory:g} GiB)")
    data.protocol |= {
        "classifier": "an L2 SVM with squared hinge loss a class (LIBLINEAR), positives weighed twice, on "
        "features divided by their norm",
        "average_precision": "area under the interpolated curve, without ignored images",
        "costs": config.costs,
        "one_hot": config.one_hot,
        "seed": config.seed,
        **({"sample": len(train.features)} if config.sample else {}),
    }
    score = _score_full if config.low_shot is None else _score_low_shot
    scores = score(train, test, names, config, jobs)
    say_metrics(scores.metrics)
    protocol = {**data.protocol, **scores.protocol}
    return Result("svm", scores.metrics, protocol, data.provenance, scores.predictions)


def open_features(config: SvmConfig, runtime: Runtime) -> LabelledFeatures:
    """Features of train and test by the protocol, of VOC2007 unless another set is named, or from files.

    Raises:
        UserError: the set has no test split, or whatever reading checkpoint, images or files finds.
    """
    if config.feature_files:
        return labelled_features(config.checkpoint, config, runtime)
    config.data.name = config.data.name or "voc07"
    model = open_frozen_model(config.checkpoint, config, runtime)
    if model.test is None:
        raise UserError(f"{model.train.name} has no test part, which eval/svm.py needs: name a set that has")
    images, protocol = (model.train, model.test), model.protocol
    provenance = model.provenance
    if config.protocol == "vissl":
        # VISSL squashes the images of its low-shot benchmark without resizing them first.
        short = None if config.low_shot is not None else model.transform.resize
        model = pool_in_windows(model, config.stage, short)
        side, stride, padding = WINDOWS[config.stage]
        protocol |= {
            "layers": f"{config.stage}, mean over windows of {side}, stride {stride}, padding {padding}",
            "transform": model.protocol["transform"] | {"short_side": short, "squashed": True},
        }
    assert model.test is not None
    train, test = (model.features(split, [config.layers]) for split in (model.train, model.test))
    protocol |= {"protocol": config.protocol}
    return LabelledFeatures(train, test, protocol, provenance, images)


def svm_splits(data: LabelledFeatures, config: SvmConfig) -> tuple[SvmSplit, SvmSplit, list[str]]:
    """Train and test as the SVMs take them, and the names of the classes.

    Raises:
        UserError: the labels are not of the kind that --one-hot says, or not of the same classes.
    """
    assert data.test is not None
    assert data.train.labels is not None
    assert data.test.labels is not None
    labels = [data.train.labels.numpy(), data.test.labels.numpy()]
    if config.one_hot and labels[0].ndim == 2:
        raise UserError("the images have several labels already: leave --one-hot out")
    if not config.one_hot and labels[0].ndim == 1:
        raise UserError(
            "the images have one label each: --one-hot fits an SVM to each class against all others"
        )
    classes = np.unique(labels[0]) if config.one_hot else np.arange(labels[0].shape[1])
    sampled, counts = sample_rows(labels[0], config.sample, config.seed), [len(values) for values in labels]
    labels[0] = labels[0] if sampled is None else labels[0][sampled]
    if config.one_hot:
        labels = [values[:, None] == classes for values in labels]
    if labels[0].shape[1] != labels[1].shape[1]:
        raise UserError(
            f"train has labels for {labels[0].shape[1]} classes and test for {labels[1].shape[1]}: they are "
            "not of one set"
        )
    ignored: list[np.ndarray | None]
    if data.images is None:
        files = (config.train_features, config.test_features)
        shapes = [(count, len(classes)) for count in counts]
        ignored = [read_ignored(file, shape) for file, shape in zip(files, shapes, strict=True)]
        names = [str(label) for label in classes]
    else:
        ignored = [ignored_of(images) for images in data.images if images is not None]
        names = [data.images[0].classes[label] for label in classes]
    features = [data.train.tensor.numpy(), data.test.tensor.numpy()]
    if sampled is not None:
        features[0] = features[0][sampled]
        ignored[0] = None if ignored[0] is None else ignored[0][sampled]
    train, test = (SvmSplit.of(*arrays) for arrays in zip(features, labels, ignored, strict=True))
    return train, test, names


def sample_rows(labels: np.ndarray, size: int, seed: int) -> np.ndarray | None:
    """int64[n], rising: about `size` images by the seed, of labels[N] an equal part of every class and of
    labels[N, C] any; None: all of them."""
    if not 0 < size < len(labels):
        return None
    return draw_by_class(labels if labels.ndim == 1 else np.zeros(len(labels)), size / len(labels), seed)


def read_ignored(path: str | None, shape: tuple[int, ...]) -> np.ndarray | None:
    """The array `ignored` bool[N,C] of a feature file, if it has one.

    Raises:
        UserError: it is of another shape or type.
    """
    assert path is not None
    with np.load(path, allow_pickle=False) as arrays:
        ignored = arrays.get("ignored")
    if ignored is not None and (ignored.shape != shape or ignored.dtype != bool):
        raise UserError(
            f"{path} holds ignored{list(ignored.shape)} of type {ignored.dtype}; bool{list(shape)} is needed"
        )
    return ignored


def _score_full(
    train: SvmSplit, test: SvmSplit, names: Sequence[str], config: SvmConfig, jobs: int
) -> Result:
    full = score_full(train, test, names, config.costs, folds=config.folds, seed=config.seed, jobs=jobs)
    arguments = full.scores, test.labels, test.ignored
    metrics = {
        "svm/mAP": mean_average_precision(*arguments),
        "svm/mAP_11point": mean_average_precision(*arguments, eleven_points),
    }
    metrics |= {f"svm/AP/{name}": value for name, value in zip(names, full.precision, strict=True)}
    predictions = Predictions(test.labels.astype(np.int64), {"svm": full.scores})
    return Result("svm", metrics, _full_protocol(full, names, config), predictions=predictions)


def _full_protocol(full: FullScores, names: Sequence[str], config: SvmConfig) -> dict[str, Any]:
    """How the costs of the full benchmark were chosen."""
    fixed = len(config.costs) == 1
    return {
        "folds": None if fixed else config.folds,
        "chosen_on": "given" if fixed else f"{config.folds}-fold cross-validation on train, class by class",
        "chosen_cost": dict(zip(names, full.cost.tolist(), strict=True)),
        "cross_validated_AP": None if fixed else dict(zip(names, full.validated.tolist(), strict=True)),
        "unconverged_fits": full.unconverged,
    }


def _score_low_shot(
    train: SvmSplit, test: SvmSplit, names: Sequence[str], config: SvmConfig, jobs: int
) -> Result:
    scores = score_low_shot(
        train,
        test,
        names,
        config.costs,
        shots=config.low_shot or SHOTS,
        draws=config.draws,
        seed=config.seed,
        jobs=jobs,
    )
    metrics, chosen = scores.summary(config.costs)
    protocol = {
        "shots": list(scores.test),
        "draws": config.draws,
        "std": "of a population, as VISSL has it",
        "chosen_on": "the images of train that were not drawn; best_on_test_cost: test",
        "chosen_cost": chosen,
        "unconverged_fits": scores.unconverged,
    }
    return Result("svm", metrics, protocol)
