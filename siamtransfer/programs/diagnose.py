"""Measures representations without training on them: collapse, rank, spectrum, views, clusters, similarity.

    siamtransfer diagnose runs/demo/checkpoint.pth
    siamtransfer diagnose runs/a/checkpoint.pth runs/b/checkpoint.pth random:resnet50 --spectrum spectra.png
    siamtransfer diagnose swav.pth.tar --data.name imagenet --data.root /data/imagenet --views 50
    siamtransfer diagnose --train-features train.npz --test-features test.npz      features of any framework
    siamtransfer diagnose CKPT --invariance            and how far features move when images are transformed
    siamtransfer diagnose a.pth b.pth c.pth --accuracy 57.1 60.2 55.0              are the rules reliable?

A number is called NAME/backbone or NAME/projection for what it was measured on: of our own checkpoints the
projector is rebuilt, of foreign ones only the backbone is known. Covariance, tolerance and CKA of backbones
are of all images; projections, and the numbers of pairs, are of a sample (--sample); alignment and LiDAR are
of augmented views (--images, --views, --recipe). With several checkpoints a name begins with the checkpoint's
number (1/rankme/backbone), each pair is compared, and the label-free rules choose among them.
"""

from __future__ import annotations

from typing import Any

from siamtransfer.cli import Command, run
from siamtransfer.evaluation.diagnostics.config import DiagnoseConfig


def diagnose_checkpoints(config: DiagnoseConfig) -> dict[str, Any] | None:
    """Checks the options, evaluates, and returns the record on rank 0."""
    config.check()
    from siamtransfer.evaluation.diagnostics.evaluate import evaluate
    from siamtransfer.evaluation.evaluator import run_evaluator

    return run_evaluator(evaluate, config)


main = Command("diagnose", DiagnoseConfig, diagnose_checkpoints, __doc__)


if __name__ == "__main__":
    run(main)
