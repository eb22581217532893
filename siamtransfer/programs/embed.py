"""Writes a backbone's features of any images, labelled or not, as a table: .npz, .parquet or .csv.

    siamtransfer embed runs/mine/checkpoint.pth my_images features.npz
    siamtransfer embed runs/mine/checkpoint.pth my_images features.csv
    siamtransfer embed timm:resnet50.a1_in1k photos.zip features.parquet --layers layer4

A row an image, in the order of the listing: its path, width and height, its class where the folders or the
list name one, and its features. Images that cannot be read are named and have no row. docs/EMBEDDING.md says
what each file holds.
"""

from __future__ import annotations

from typing import Any

from siamtransfer.cli import Command, run
from siamtransfer.embedding.config import EmbedConfig


def write_embeddings(config: EmbedConfig) -> dict[str, Any] | None:
    """Checks the options, embeds, and returns the record."""
    config.check()
    from siamtransfer.embedding.embed import evaluate
    from siamtransfer.evaluation.evaluator import run_evaluator

    return run_evaluator(evaluate, config)


main = Command("embed", EmbedConfig, write_embeddings, __doc__)


if __name__ == "__main__":
    run(main)
