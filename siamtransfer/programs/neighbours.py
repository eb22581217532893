"""Finds the images of a folder that are most like one, by the cosine of their features.

    siamtransfer neighbours dino.pth beach.jpg photos                             prints the 12 nearest
    siamtransfer neighbours dino.pth beach.jpg photos --picture grid.png          and draws them
    siamtransfer neighbours dino.pth queries photos --k 50 --out neighbours.csv   of every image in a folder

The images are a folder, a zip archive, tar shards or any other source, with labels or without. A file that is
the query itself, by its bytes, is not its neighbour.
"""

from __future__ import annotations

from typing import Any

from siamtransfer.cli import Command, run
from siamtransfer.embedding.neighbours.config import NeighboursConfig


def neighbours(config: NeighboursConfig) -> dict[str, Any] | None:
    """Checks the options, searches, and returns the record."""
    config.check()
    from siamtransfer.embedding.neighbours.evaluate import evaluate
    from siamtransfer.evaluation.evaluator import run_evaluator

    return run_evaluator(evaluate, config)


main = Command("neighbours", NeighboursConfig, neighbours, __doc__)


if __name__ == "__main__":
    run(main)
