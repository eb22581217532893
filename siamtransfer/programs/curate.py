"""Finds copies, outliers and images in both train and test, and chooses a few that stand for all, as lists.

    siamtransfer curate dino.pth photos curated                     kept.txt, duplicates.csv, outliers.csv
    siamtransfer curate dino.pth photos curated --coreset 100       also coreset.txt: 100 to label first
    siamtransfer curate dino.pth train curated --against test       also leaks.csv: images of train in test
    siamtransfer pretrain --data.name list --data.list-file curated/kept.txt --data.root photos

Copies are found among the nearest images by features, and their pixels decide: equal files, and pictures that
were resized, recompressed, mirrored or cut a little at the edges. Nothing is deleted or moved.
docs/CURATION.md says how each list is made.
"""

from __future__ import annotations

from typing import Any

from siamtransfer.cli import Command, run
from siamtransfer.embedding.curate.config import CurateConfig


def curate(config: CurateConfig) -> dict[str, Any] | None:
    """Checks the options, writes the lists, and returns the record."""
    config.check()
    from siamtransfer.embedding.curate.evaluate import evaluate
    from siamtransfer.evaluation.evaluator import run_evaluator

    return run_evaluator(evaluate, config)


main = Command("curate", CurateConfig, curate, __doc__)


if __name__ == "__main__":
    run(main)
