"""Shows what a network looks at, as contact sheets, and scores its attention against masks.

    siamtransfer attention dino.pth pictures photo.jpg holidays/          attention, masks, components
    siamtransfer attention dino.pth voc --data.name voc2012 --data.root /data/VOCdevkit
    siamtransfer attention simsiam.pth cat cat.jpg dog.jpg --patch 120 80 --layers layer3

attention.png has the class token's attention to the patches for every head of a ViT, masks.png the patches
that hold --mass of it. On a set with masks every head is scored by its Jaccard index, as in DINO's paper.
pca.png has the first three principal components of the patches in colour, similarity.png the cosine of
every patch with that of the pixel --patch X Y; both also for ResNets. The output folder is new or empty.
"""

from __future__ import annotations

from typing import Any

from siamtransfer.cli import Command, run
from siamtransfer.evaluation.attention.config import AttentionConfig


def show_attention(config: AttentionConfig) -> dict[str, Any] | None:
    """Checks the options, writes the pictures, and returns the record."""
    config.check()
    from siamtransfer.evaluation.attention.evaluate import evaluate
    from siamtransfer.evaluation.evaluator import run_evaluator

    return run_evaluator(evaluate, config)


main = Command("attention", AttentionConfig, show_attention, __doc__)


if __name__ == "__main__":
    run(main)
