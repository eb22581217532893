"""Scores a backbone by a linear classifier on its frozen features (logistic regression by L-BFGS).

    python eval/linear.py runs/demo/checkpoint.pth
    python eval/linear.py checkpoint_0099.pth.tar --data.name imagenet --data.root /data/imagenet
    python eval/linear.py --train-features train.npz --test-features test.npz

Features are extracted once and kept (see --cache). The regularisation strength C is chosen on a held-out
tenth of train, the classifier is refitted on all of train, and the test part is scored once. Where the set
has no test part, a fifth of every class is set aside as one.
"""

from __future__ import annotations

from typing import Any

from siamtransfer import runtime
from siamtransfer.cli import run, say
from siamtransfer.config import Parser, parse
from siamtransfer.errors import UserError
from siamtransfer.evaluation import EvaluationConfig, labelled_features
from siamtransfer.features import Features
from siamtransfer.probes import probe, split_by_class
from siamtransfer.results import record

STRENGTHS = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
TEST_SHARE = 0.2


def main(argv: list[str] | None = None) -> dict[str, Any] | None:
    """The command line; returns the record on rank 0."""
    config, asked = parse(EvaluationConfig, description=__doc__, arguments=_arguments, argv=argv)
    if min(asked.strengths) <= 0:
        raise UserError("--strengths must be above 0")
    with runtime.start(config.device, config.precision) as place:
        found = labelled_features(asked.checkpoint, config, place)
        if not place.is_main:
            return None
        train, test = found.train, found.test
        if test is None:
            train, test = _set_aside(train, asked.seed)
            found.protocol |= {"test": f"{TEST_SHARE:.0%} of train", "test_images": len(test.features)}
        assert train.labels is not None
        assert test.labels is not None
        if train.labels.ndim == 2:
            raise UserError("eval/linear.py needs one label an image, and these features have several")
        result = probe(
            train.tensor.to(place.device), train.labels.to(place.device),
            test.tensor.to(place.device), test.labels.to(place.device),
            strengths=asked.strengths, seed=asked.seed,
        )  # fmt: skip
    say(f"linear probe: top-1 {result.top1:.2f} %, top-5 {result.top5:.2f} % (C = {result.strength:g})")
    protocol = {
        **found.protocol,
        "classifier": "multinomial logistic regression on standardised features, L-BFGS",
        "strengths": asked.strengths,
        "chosen_strength": result.strength,
        "chosen_on": "a held-out tenth of train",
        "held_out_top1": {f"{c:g}": value for c, value in result.held_out.items()},
        "seed": asked.seed,
    }
    return record(
        "linear", {"linear/top1": result.top1, "linear/top5": result.top5}, protocol, **found.provenance
    )


def _set_aside(train: Features, seed: int) -> tuple[Features, Features]:
    assert train.labels is not None
    fitting, holding = split_by_class(train.labels, TEST_SHARE, seed)
    parts = [Features(train.tensor[rows], train.labels[rows]) for rows in (fitting, holding)]
    return parts[0], parts[1]


def _arguments(parser: Parser) -> None:
    parser.add_argument(
        "checkpoint", nargs="?", default=None, help="checkpoint of any known format, or a baseline"
    )
    parser.add_argument(
        "--strengths",
        type=float,
        nargs="+",
        default=STRENGTHS,
        help="values of C to choose from (scikit-learn's C)",
    )
    parser.add_argument("--seed", type=int, default=0, help="decides the held-out part")


if __name__ == "__main__":
    run(main)
