"""Writes a backbone's features of a labelled set as an .npz that the evaluators and NumPy read.

    siamtransfer features runs/demo/checkpoint.pth train.npz
    siamtransfer features runs/demo/checkpoint.pth test.npz --part test
    siamtransfer features swav.pth.tar train.npz --data.name imagenet --data.root /data/imagenet

The file holds `features` float32[N,D] and `labels` int64[N] in the set's order, uncompressed, so that a large
one can be searched without loading it. Features are extracted once and kept (see --cache).
"""

from __future__ import annotations

from typing import Any

from siamtransfer.cli import Command, run
from siamtransfer.evaluation.feature_export.config import FeaturesConfig


def write_features(config: FeaturesConfig) -> dict[str, Any] | None:
    """Checks the options, evaluates, and returns the record on rank 0."""
    config.check()
    from siamtransfer.evaluation.evaluator import run_evaluator
    from siamtransfer.evaluation.feature_export.evaluate import evaluate

    return run_evaluator(evaluate, config)


main = Command("features", FeaturesConfig, write_features, __doc__)


if __name__ == "__main__":
    run(main)
