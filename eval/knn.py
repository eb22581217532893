"""Scores a backbone by weighted k-nearest-neighbour voting (Wu et al. 2018), exactly.

    python eval/knn.py runs/demo/checkpoint.pth
    python eval/knn.py checkpoint_0099.pth.tar --data.name imagenet --data.root /data/imagenet --k 20 200
    python eval/knn.py --train-features train.npz --test-features test.npz       features of any framework
    python eval/knn.py random:resnet50 --data.name cifar10 --data.root data      an untrained baseline
    python eval/knn.py runs/demo/checkpoint.pth --neighbours grid.png            look at the neighbours

One search at the largest k serves every k, temperature and way of voting. Where the set has no test part,
every image is scored against all others (leave-one-out). Labels[N,C] of 0 and 1 in feature files give mAP.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from siamtransfer import runtime
from siamtransfer.cli import run, say
from siamtransfer.config import Parser, parse
from siamtransfer.errors import UserError
from siamtransfer.evaluation import EvaluationConfig, LabelledFeatures, labelled_features
from siamtransfer.files import atomic_write
from siamtransfer.grid import write_neighbours
from siamtransfer.neighbours import search
from siamtransfer.results import record
from siamtransfer.runtime import Runtime
from siamtransfer.voting import KnnScores, score_neighbours


def main(argv: list[str] | None = None) -> dict[str, Any] | None:
    """The command line; returns the record on rank 0."""
    config, asked = parse(EvaluationConfig, description=__doc__, arguments=_arguments, argv=argv)
    if min(asked.k) < 1:
        raise UserError("--k must be at least 1")
    if min(asked.temperature) <= 0:
        raise UserError("--temperature must be above 0")
    if not asked.memory_budget > 0:
        raise UserError("--memory-budget must be above 0")
    with runtime.start(config.device, config.precision) as place:
        found = labelled_features(asked.checkpoint, config, place, mapped=True)
        if asked.neighbours and found.images is None:
            raise UserError("--neighbours needs images: give a checkpoint and a set instead of feature files")
        similarities, indices = find_neighbours(found, asked, place)
        if not place.is_main:
            return None
        test = found.test or found.train
        assert found.train.labels is not None
        assert test.labels is not None
        temperatures = [*asked.temperature, *([None] if asked.uniform else [])]
        scores = score_neighbours(
            similarities, indices, found.train.labels, test.labels, asked.k, temperatures, metric=asked.metric
        )
    for name, value in scores.metrics.items():
        say(f"{name:32} {value:6.2f} %")
    if asked.predictions:
        write_predictions(Path(asked.predictions), scores, test.labels.numpy())
    if asked.neighbours:
        assert found.images is not None
        write_neighbours(Path(asked.neighbours), found.images, indices)
        say(
            f"wrote {asked.neighbours}: a query and its nearest neighbours a row, other classes framed in red"
        )
    protocol = {
        **found.protocol,
        "k": asked.k,
        "temperature": asked.temperature,
        "uniform": asked.uniform,
        "similarity": asked.metric,
        "interval": "percentile bootstrap over queries, 95 %",
    }
    return record("knn", scores.metrics, protocol, **found.provenance)


def find_neighbours(found: LabelledFeatures, asked: Any, place: Runtime) -> tuple[torch.Tensor, torch.Tensor]:
    """The nearest max(k) of every query, on every rank; each rank searches for its share of the queries."""
    queries = (found.test or found.train).tensor
    mine = torch.arange(place.rank, len(queries), place.world)
    bank = found.train.features
    if isinstance(bank, torch.Tensor):
        bank = bank.to(place.device)
    parts = search(
        bank,
        queries[mine].to(place.device),
        max(asked.k),
        leave_out=None if found.test else mine.to(place.device),
        metric=asked.metric,
        budget=int(asked.memory_budget * 2**30),
    )
    together = [place.interleave(part, len(queries)) for part in parts]
    return together[0], together[1]


def write_predictions(path: Path, scores: KnnScores, labels: np.ndarray) -> None:
    """An .npz: `labels`, and for every setting what was predicted, with the confusion matrix of its
    classes."""
    arrays: dict[str, np.ndarray] = {"labels": labels}
    for name, predicted in scores.predictions.items():
        arrays[f"{name}/predictions"] = predicted
        if labels.ndim == 1:
            classes = np.union1d(labels, predicted)
            confusion = np.zeros((len(classes), len(classes)), np.int64)
            np.add.at(confusion, (np.searchsorted(classes, labels), np.searchsorted(classes, predicted)), 1)
            arrays |= {f"{name}/classes": classes, f"{name}/confusion": confusion}
    with atomic_write(path) as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    say(f"wrote {path}: predictions, and confusion[true, predicted], of every setting")


def _arguments(parser: Parser) -> None:
    parser.add_argument(
        "checkpoint", nargs="?", default=None, help="checkpoint of any known format, or a baseline"
    )
    parser.add_argument("--k", type=int, nargs="+", default=[10, 20, 100, 200], help="numbers of neighbours")
    parser.add_argument(
        "--temperature", type=float, nargs="+", default=[0.07], help="temperatures of the vote"
    )
    parser.add_argument("--uniform", action="store_true", help="also count every neighbour alike")
    parser.add_argument(
        "--metric",
        choices=["cosine", "euclidean"],
        default="cosine",
        help="euclidean votes weigh 1 / distance, whatever the temperature",
    )
    parser.add_argument(
        "--memory_budget",
        type=float,
        default=2.0,
        help="GiB for the search; a larger bank is taken in chunks, from an uncompressed .npz unloaded",
    )
    parser.add_argument("--predictions", metavar="OUT.npz", default=None, help="write every prediction")
    parser.add_argument("--neighbours", metavar="GRID.png", default=None, help="draw queries and neighbours")


if __name__ == "__main__":
    run(main)
