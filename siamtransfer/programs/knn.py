"""Scores a backbone by weighted k-nearest-neighbour voting (Wu et al. 2018), exactly.

    python eval/knn.py runs/demo/checkpoint.pth
    python eval/knn.py checkpoint_0099.pth.tar --data.name imagenet --data.root /data/imagenet --k 20 200
    python eval/knn.py --train-features train.npz --test-features test.npz       features of any framework
    python eval/knn.py random:resnet50 --data.name cifar10 --data.root data      an untrained baseline
    python eval/knn.py torchvision:resnet50 --data.name cifar10 --data.root data a supervised baseline
    python eval/knn.py runs/demo/checkpoint.pth --neighbours grid.png            look at the neighbours
    python eval/knn.py runs/demo/checkpoint.pth --record knn.json                keep record and predictions

One search at the largest k serves every k, temperature and way of voting. Where the set has no test part,
every image is scored against all others (leave-one-out). Labels[N,C] of 0 and 1 in feature files give mAP.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from siamtransfer.cli import run
from siamtransfer.config import Parser, parse
from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime, start_runtime
from siamtransfer.evaluation.frozen_model import EvaluationConfig, LabelledFeatures, labelled_features
from siamtransfer.evaluation.knn.picture import write_neighbours
from siamtransfer.evaluation.knn.search import search
from siamtransfer.evaluation.knn.vote import score_neighbours
from siamtransfer.records.predictions import Predictions, publish
from siamtransfer.records.record import record
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say


def main(argv: list[str] | None = None) -> dict[str, Any] | None:
    """The command line; returns the record on rank 0."""
    config, asked = parse(EvaluationConfig, description=__doc__, arguments=_arguments, argv=argv)
    if min(asked.k) < 1:
        raise UserError("--k must be at least 1")
    if min(asked.temperature) <= 0:
        raise UserError("--temperature must be above 0")
    if not asked.memory_budget > 0:
        raise UserError("--memory-budget must be above 0")
    with start_runtime(config.device, config.precision) as runtime:
        found = labelled_features(asked.checkpoint, config, runtime, mapped=True)
        if asked.neighbours and found.images is None:
            raise UserError("--neighbours needs images: give a checkpoint and a set instead of feature files")
        similarities, indices = find_neighbours(found, asked, runtime)
        if not runtime.is_main:
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
    predictions = Predictions(test.labels.numpy(), scores.predictions)
    return publish(record("knn", scores.metrics, protocol, **found.provenance), predictions, config.record)


def find_neighbours(
    found: LabelledFeatures, asked: Any, runtime: Runtime
) -> tuple[torch.Tensor, torch.Tensor]:
    """The nearest max(k) of every query, on every rank; each rank searches for its share of the queries."""
    queries = (found.test or found.train).tensor
    mine = torch.arange(runtime.rank, len(queries), runtime.world_size)
    bank = found.train.features
    if isinstance(bank, torch.Tensor):
        bank = bank.to(runtime.device)
    parts = search(
        bank,
        queries[mine].to(runtime.device),
        max(asked.k),
        leave_out=None if found.test else mine.to(runtime.device),
        metric=asked.metric,
        budget=int(asked.memory_budget * 2**30),
    )
    together = [collectives.all_gather_rows(part, len(queries), runtime.device) for part in parts]
    return together[0], together[1]


def _arguments(parser: Parser) -> None:
    parser.add_argument(
        "checkpoint",
        nargs="?",
        default=None,
        help="checkpoint of any known format, or a baseline: random:NAME, torchvision:NAME, pixels",
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
    parser.add_argument("--neighbours", metavar="GRID.png", default=None, help="draw queries and neighbours")


if __name__ == "__main__":
    run(main)
