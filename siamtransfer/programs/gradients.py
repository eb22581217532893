"""The gradient view: the gradient of a method's loss by its embeddings, as a pull, a push and their balance.

    siamtransfer gradients runs/demo/checkpoint.pth
    siamtransfer gradients runs/demo/checkpoints --plot gradients.png          one run over its training
    siamtransfer gradients runs/a/checkpoints runs/b/checkpoints --plot ab.png
    siamtransfer gradients imagenet.pth --data.root /elsewhere/imagenet --batches 8

Every checkpoint of our own (any method but SwAV and DINO, whose targets are no embeddings) is restored as it
was saved: its heads, target network, queue and averages, on views of its recorded images by its recorded
recipe, which training has not drawn. The gradient with respect to an embedding is split in closed form and
counts only where autograd of the method's own loss agrees (float64, below 1e-8). Numbers are called
gradient/NAME; those of several checkpoints begin with the checkpoint's number (1/gradient/ratio).
"""

from __future__ import annotations

from typing import Any

from siamtransfer.cli import Command, run
from siamtransfer.evaluation.gradient_view.config import GradientsConfig


def view_gradients(config: GradientsConfig) -> dict[str, Any] | None:
    """Checks the options, evaluates, and returns the record on rank 0."""
    config.check()
    from siamtransfer.evaluation.evaluator import run_evaluator
    from siamtransfer.evaluation.gradient_view.evaluate import evaluate

    return run_evaluator(evaluate, config)


main = Command("gradients", GradientsConfig, view_gradients, __doc__)


if __name__ == "__main__":
    run(main)
