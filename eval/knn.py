"""Scores a backbone by weighted k-nearest-neighbour voting (Wu et al. 2018), exactly.

    python eval/knn.py runs/demo/checkpoint.pth
    python eval/knn.py checkpoint_0099.pth.tar --data.name imagenet --data.root /data/imagenet --k 20 200
    python eval/knn.py --train-features train.npz --test-features test.npz       features of any framework
    python eval/knn.py random:resnet50 --data.name cifar10 --data.root data      an untrained baseline

One search at the largest k serves every k and temperature. Where the set has no test part, every image is
scored against all others (leave-one-out).
"""

from __future__ import annotations

from typing import Any

import torch

from siamtransfer import runtime
from siamtransfer.cli import run, say
from siamtransfer.config import Parser, parse
from siamtransfer.errors import UserError
from siamtransfer.evaluation import EvaluationConfig, labelled_features
from siamtransfer.neighbours import knn_accuracies
from siamtransfer.results import record


def main(argv: list[str] | None = None) -> dict[str, Any] | None:
    """The command line; returns the record on rank 0."""
    config, asked = parse(EvaluationConfig, description=__doc__, arguments=_arguments, argv=argv)
    if min(asked.temperature) <= 0:
        raise UserError("--temperature must be above 0")
    with runtime.start(config.device, config.precision) as place:
        found = labelled_features(asked.checkpoint, config, place)
        if not place.is_main:
            return None
        test = found.test or found.train
        leave_out = None if found.test else torch.arange(len(test.features), device=place.device)
        assert found.train.labels is not None
        assert test.labels is not None
        metrics = knn_accuracies(
            found.train.features.to(place.device),
            found.train.labels,
            test.features.to(place.device),
            test.labels,
            asked.k,
            asked.temperature,
            leave_out=leave_out,
        )
    for name, value in metrics.items():
        say(f"{name:32} {value:6.2f} %")
    protocol = {**found.protocol, "k": asked.k, "temperature": asked.temperature, "similarity": "cosine"}
    return record("knn", metrics, protocol, **found.provenance)


def _arguments(parser: Parser) -> None:
    parser.add_argument(
        "checkpoint", nargs="?", default=None, help="checkpoint of any known format, or a baseline"
    )
    parser.add_argument("--k", type=int, nargs="+", default=[10, 20, 100, 200], help="numbers of neighbours")
    parser.add_argument(
        "--temperature", type=float, nargs="+", default=[0.07], help="temperatures of the vote"
    )


if __name__ == "__main__":
    run(main)
