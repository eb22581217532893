"""Scores a backbone by copy detection: cropped, recoloured, printed copies search their originals.

    siamtransfer copies dino.pth --data.root /data/copydays --data.distractors yfcc10k --whitening yfcc20k
    siamtransfer copies simsiam.pth --data.root /data/copydays --data.subsets strong jpegqual crops

The defaults are those of DINO's code on the strong copies of Copydays: squares of 320 pixels, the class token
beside gem of the patches, mAP within the 20 nearest images. docs/RETRIEVAL.md has the layout.
"""

from __future__ import annotations

from typing import Any

from siamtransfer.cli import Command, run
from siamtransfer.evaluation.copies.config import CopiesConfig


def evaluate_copies(config: CopiesConfig) -> dict[str, Any] | None:
    """Checks the options, searches, and returns the record on rank 0."""
    config.check()
    from siamtransfer.evaluation.copies.evaluate import evaluate
    from siamtransfer.evaluation.evaluator import run_evaluator

    return run_evaluator(evaluate, config)


main = Command("copies", CopiesConfig, evaluate_copies, __doc__)


if __name__ == "__main__":
    run(main)
