"""Scores a backbone by linear SVMs on VOC2007 classification: with all labels, or with a few of each class.

    python eval/svm.py swav.pth.tar --data.root /data                               /data/VOCdevkit/VOC2007
    python eval/svm.py swav.pth.tar --data.root /data --protocol swav
    python eval/svm.py swav.pth.tar --data.root /data --low-shot                    1, 2, 4, … 96 shots
    python eval/svm.py --train-features train.npz --test-features test.npz          labels[N,C] of 0 and 1
    python eval/svm.py runs/demo/checkpoint.pth --data.name fashion-scenes --one-hot --protocol swav

--protocol vissl (VISSL and mmselfsup; Goyal et al., arXiv 1905.01235): images squashed to 224 x 224, the last
stage averaged in 2 x 2 windows (8192 features of a ResNet-50). --protocol swav (SwAV and those after it): a
central crop and the output (2048). Each class has its SVM, whose cost is chosen by 3-fold cross-validation on
train. The score is the mean over classes of the average precision, the area under the interpolated curve,
without the images in which a class is only shown in difficult objects. Feature files may say which those are
in an array `ignored`[N,C].

--low-shot fits each SVM to k images that show its class and k for every other class that do not, in 5 draws.
The cost is the one with the best mAP on the images of train that were not drawn, so its choice needs more
labels than the k. The published protocol takes the one with the best mAP on test: that is reported, too, as
…/best_on_test_cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from siamtransfer.backbones.feature_layers import OUTPUT
from siamtransfer.cli import run
from siamtransfer.config import Parser, parse
from siamtransfer.data.voc import ignored_of
from siamtransfer.distributed.runtime import Runtime, cpu_count, start_runtime
from siamtransfer.evaluation.frozen_model import (
    EvaluationConfig,
    LabelledFeatures,
    labelled_features,
    open_frozen_model,
)
from siamtransfer.evaluation.svm.pooled_features import WINDOWS, windowed
from siamtransfer.evaluation.svm.svm import COSTS, SHOTS, FullScores, Part, score_full, score_low_shot
from siamtransfer.metrics.average_precision import eleven_points, mean_average_precision
from siamtransfer.records.predictions import Predictions, publish
from siamtransfer.records.record import record
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say


def main(argv: list[str] | None = None) -> dict[str, Any] | None:
    """The command line; returns the record on rank 0."""
    config, asked = parse(EvaluationConfig, description=__doc__, arguments=_arguments, argv=argv)
    check(config, asked)
    with start_runtime(config.device, config.precision) as runtime:
        found = find_features(config, asked, runtime)
        if not runtime.is_main:
            return None
    train, test, names = parts(found, config, one_hot=asked.one_hot)
    jobs = asked.jobs or cpu_count()
    say(f"fitting the SVMs of {len(names)} classes, {jobs} at once")
    protocol = {
        **found.protocol,
        "classifier": "an L2 SVM with squared hinge loss a class (LIBLINEAR), positives weighed twice, on "
        "features divided by their norm",
        "average_precision": "area under the interpolated curve, without ignored images",
        "costs": asked.costs,
        "one_hot": asked.one_hot,
        "seed": asked.seed,
    }
    predictions = None
    if asked.low_shot is None:
        full = score_full(train, test, names, asked.costs, folds=asked.folds, seed=asked.seed, jobs=jobs)
        truth = full.scores, test.labels, test.ignored
        metrics = {
            "svm/mAP": mean_average_precision(*truth),
            "svm/mAP_11point": mean_average_precision(*truth, eleven_points),
        }
        metrics |= {f"svm/AP/{name}": value for name, value in zip(names, full.precision, strict=True)}
        protocol |= full_protocol(full, names, asked)
        predictions = Predictions(test.labels.astype(np.int64), {"svm": full.scores})
    else:
        few = score_low_shot(
            train, test, names, asked.costs,
            shots=asked.low_shot or SHOTS, draws=asked.draws, seed=asked.seed, jobs=jobs,
        )  # fmt: skip
        metrics, chosen = few.summary(asked.costs)
        protocol |= {
            "shots": list(few.test),
            "draws": asked.draws,
            "std": "of a population, as VISSL has it",
            "chosen_on": "the images of train that were not drawn; best_on_test_cost: test",
            "chosen_cost": chosen,
            "unconverged_fits": few.unconverged,
        }
    for name, value in metrics.items():
        say(f"{name:48} {value:6.2f} %")
    return publish(record("svm", metrics, protocol, **found.provenance), predictions, config.record)


def check(config: EvaluationConfig, asked: Any) -> None:
    """Refuses what means nothing or does not go together, before any work."""
    if min(asked.costs) <= 0:
        raise UserError("--costs must be above 0")
    if asked.folds < 2 or asked.draws < 1 or min(asked.low_shot or [1]) < 1 or (asked.jobs or 1) < 1:
        raise UserError("--folds must be at least 2, and --draws, --low-shot and --jobs at least 1")
    if config.layers != OUTPUT and asked.protocol == "vissl" and not config.train_features:
        raise UserError("--layers goes with --protocol swav; --protocol vissl takes a --stage")
    if asked.stage != "res5" and (asked.protocol != "vissl" or config.train_features):
        raise UserError("--stage goes with --protocol vissl on images; --protocol swav takes --layers")


def find_features(config: EvaluationConfig, asked: Any, runtime: Runtime) -> LabelledFeatures:
    """Features of train and test by the protocol, of VOC2007 unless another set is named, or from files.

    Raises:
        UserError: the set has no test part, or whatever reading checkpoint, images or files finds.
    """
    if config.train_features or config.test_features:
        return labelled_features(asked.checkpoint, config, runtime)
    config.data.name = config.data.name or "voc07"
    subject = open_frozen_model(asked.checkpoint, config, runtime)
    if subject.test is None:
        raise UserError(
            f"{subject.train.name} has no test part, which eval/svm.py needs: name a set that has"
        )
    viewed, protocol = subject, subject.protocol
    if asked.protocol == "vissl":
        # VISSL squashes the images of its low-shot benchmark at once.
        short = None if asked.low_shot is not None else subject.transform.resize
        viewed = windowed(subject, asked.stage, short)
        side, stride, padding = WINDOWS[asked.stage]
        protocol |= {
            "layers": f"{asked.stage}, mean over windows of {side}, stride {stride}, padding {padding}",
            "transform": viewed.protocol["transform"] | {"short_side": short, "squashed": True},
        }
    assert viewed.test is not None
    train, test = (viewed.features(images, [config.layers]) for images in (viewed.train, viewed.test))
    protocol |= {"protocol": asked.protocol}
    return LabelledFeatures(train, test, protocol, subject.provenance, (subject.train, subject.test))


def parts(
    found: LabelledFeatures, config: EvaluationConfig, *, one_hot: bool
) -> tuple[Part, Part, list[str]]:
    """Train and test as the SVMs take them, and the names of the classes.

    Raises:
        UserError: the labels are not of the wanted kind, or not of the same classes.
    """
    assert found.test is not None
    assert found.train.labels is not None
    assert found.test.labels is not None
    labels = [found.train.labels.numpy(), found.test.labels.numpy()]
    if one_hot == (labels[0].ndim == 2):
        raise UserError(
            "the images have several labels already: leave --one-hot out" if one_hot else
            "the images have one label each: --one-hot fits an SVM to each class against all others"
        )  # fmt: skip
    classes = np.unique(labels[0]) if one_hot else np.arange(labels[0].shape[1])
    if one_hot:
        labels = [values[:, None] == classes for values in labels]
    if labels[0].shape[1] != labels[1].shape[1]:
        raise UserError(
            f"train has labels for {labels[0].shape[1]} classes and test for {labels[1].shape[1]}: they are "
            "not of one set"
        )
    ignored: list[np.ndarray | None]
    if found.images is None:
        files = (config.train_features, config.test_features)
        ignored = [read_ignored(file, y.shape) for file, y in zip(files, labels, strict=True)]
        names = [str(label) for label in classes]
    else:
        ignored = [ignored_of(images) for images in found.images]
        names = [found.images[0].classes[label] for label in classes]
    features = (found.train.tensor.numpy(), found.test.tensor.numpy())
    train, test = (Part.of(*values) for values in zip(features, labels, ignored, strict=True))
    return train, test, names


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


def full_protocol(full: FullScores, names: Sequence[str], asked: Any) -> dict[str, Any]:
    """How the costs of the full benchmark were chosen."""
    one = len(asked.costs) == 1
    return {
        "folds": None if one else asked.folds,
        "chosen_on": "given" if one else f"{asked.folds}-fold cross-validation on train, class by class",
        "chosen_cost": dict(zip(names, full.cost.tolist(), strict=True)),
        "cross_validated_AP": None if one else dict(zip(names, full.validated.tolist(), strict=True)),
        "unconverged_fits": full.unconverged,
    }


def _arguments(parser: Parser) -> None:
    parser.add_argument(
        "checkpoint",
        nargs="?",
        default=None,
        help="checkpoint of any known format, or a baseline: random:NAME, torchvision:NAME, pixels",
    )
    parser.add_argument("--protocol", choices=["vissl", "swav"], default="vissl", help="see above")
    parser.add_argument(
        "--stage", choices=list(WINDOWS), default="res5", help="vissl: the stage whose map is averaged"
    )
    parser.add_argument("--costs", type=float, nargs="+", default=list(COSTS), help="values of C")
    parser.add_argument("--folds", type=int, default=3, help="parts of train in cross-validation")
    parser.add_argument(
        "--low_shot", type=int, nargs="*", default=None, metavar="K",
        help=f"score low-shot classification, with these numbers of shots (default: {SHOTS})",
    )  # fmt: skip
    parser.add_argument("--draws", type=int, default=5, help="low-shot: how often the images are drawn")
    parser.add_argument(
        "--one_hot", action="store_true", help="take a set of one label an image, each class against the rest"
    )
    parser.add_argument("--seed", type=int, default=0, help="decides draws and the order of LIBLINEAR")
    parser.add_argument("--jobs", type=int, default=None, help="processes; null: one a processor")


if __name__ == "__main__":
    run(main)
