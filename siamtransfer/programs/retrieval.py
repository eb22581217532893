"""Scores a backbone by image retrieval: queries search a database, as on the revisited Oxford and Paris sets.

    siamtransfer retrieval dino.pth --data.name rparis6k --data.root /data/rparis6k
    siamtransfer retrieval dino.pth --data.name roxford5k --data.root /data/roxford5k --size 224 --scales 1
    siamtransfer retrieval simsiam.pth --data.name folder --data.root photos --data.queries answers.json

mAP and mP@1, 5, 10 of the settings easy, medium and hard, junk taken out as in the benchmark's own code. An
image becomes one vector: pooled at several scales, whitened if a folder for it is given; the cosine ranks.
docs/RETRIEVAL.md has the layouts, the form of your own queries, and which options DINO's numbers take.
"""

from __future__ import annotations

from typing import Any

from siamtransfer.cli import Command, run
from siamtransfer.evaluation.retrieval.config import RetrievalConfig


def evaluate_retrieval(config: RetrievalConfig) -> dict[str, Any] | None:
    """Checks the options, searches, and returns the record on rank 0."""
    config.check()
    from siamtransfer.evaluation.evaluator import run_evaluator
    from siamtransfer.evaluation.retrieval.evaluate import evaluate

    return run_evaluator(evaluate, config)


main = Command("retrieval", RetrievalConfig, evaluate_retrieval, __doc__)


if __name__ == "__main__":
    run(main)
