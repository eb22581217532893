"""Scores a backbone with a few labels of each class: repeated draws, their mean, spread and interval.

    python eval/fewshot.py runs/demo/checkpoint.pth --shots 1 5 20 --repeats 10
    python eval/fewshot.py --train-features train.npz --test-features test.npz --shots 1 5

Every repeat draws its images of each class by its number, fits multinomial logistic regression on their
standardised features, and scores the whole test part. So few labels leave none to choose a strength by:
--strengths are fixed beforehand and each is reported under its own name.
"""

from __future__ import annotations

from typing import Any

from siamtransfer.cli import run
from siamtransfer.config import Parser, parse
from siamtransfer.data.subset import draw_shots
from siamtransfer.distributed.runtime import start_runtime
from siamtransfer.evaluation.frozen_model import EvaluationConfig, labelled_features
from siamtransfer.evaluation.linear.logistic import fit_logistic
from siamtransfer.evaluation.linear.probe import count_like, set_aside
from siamtransfer.metrics.intervals import spread
from siamtransfer.records.predictions import Predictions, publish
from siamtransfer.records.record import record
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say


def main(argv: list[str] | None = None) -> dict[str, Any] | None:
    """The command line; returns the record on rank 0."""
    config, asked = parse(EvaluationConfig, description=__doc__, arguments=_arguments, argv=argv)
    if min(asked.shots) < 1 or asked.repeats < 2 or min(asked.strengths) <= 0:
        raise UserError("--shots must be at least 1, --repeats at least 2 and --strengths above 0")
    with start_runtime(config.device, config.precision) as runtime:
        found = labelled_features(asked.checkpoint, config, runtime)
        if not runtime.is_main:
            return None
        train, test = found.train, found.test
        if test is None:
            train, test = set_aside(train, 0)
            found.protocol |= {"test": "a fifth of train", "test_images": len(test.features)}
        assert train.labels is not None
        if train.labels.ndim == 2:
            raise UserError("eval/fewshot.py needs one label an image, and these features have several")
        y, scored = count_like(train.labels, test)
        for shots in asked.shots:  # a class that is too small is told before the first fit
            draw_shots(train.labels.numpy(), shots, 0)
        metrics: dict[str, float] = {}
        predictions = {}
        for shots in asked.shots:
            for strength in asked.strengths:
                name, values = f"fewshot/k={shots}/C={strength:g}", []
                for repeat in range(asked.repeats):
                    rows = draw_shots(train.labels.numpy(), shots, repeat)
                    h, own = train.tensor[rows].to(runtime.device), y[rows].to(runtime.device)
                    classifier = fit_logistic(h, own, strength, standardise=True)
                    predicted = scored.score("try", classifier.scores(scored.features.to(runtime.device)))
                    values.append(scored.metrics["try/top1"])
                    predictions[f"{name}/repeat={repeat}"] = predicted
                metrics |= spread(f"{name}/top1", values)
                say(
                    f"{name}: {metrics[f'{name}/top1/mean']:.2f} % ± {metrics[f'{name}/top1/std']:.2f} over "
                    f"{asked.repeats} draws"
                )
    protocol = {
        **found.protocol,
        "classifier": "multinomial logistic regression on standardised features, L-BFGS",
        "shots": asked.shots,
        "strengths": asked.strengths,
        "repeats": asked.repeats,
        "interval": "95 %, Student's t over the repeats",
    }
    return publish(
        record("fewshot", metrics, protocol, **found.provenance),
        Predictions(scored.given(), predictions),
        config.record,
    )


def _arguments(parser: Parser) -> None:
    parser.add_argument(
        "checkpoint",
        nargs="?",
        default=None,
        help="checkpoint of any known format, or a baseline: random:NAME, torchvision:NAME, pixels",
    )
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 2, 5, 10], help="labels of each class")
    parser.add_argument("--repeats", type=int, default=5, help="draws; the number of a draw is its seed")
    parser.add_argument(
        "--strengths", type=float, nargs="+", default=[1.0], help="values of scikit-learn's C"
    )


if __name__ == "__main__":
    run(main)
