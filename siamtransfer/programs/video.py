"""Follows objects through videos by frozen features, as in DINO's table of DAVIS 2017: J and F.

    siamtransfer video dino.pth --data.root DAVIS
    siamtransfer video simsiam.pth --data.root DAVIS --layers layer3 --pictures strips.png
    siamtransfer video dino.pth --data.root mine --data.split all --masks predicted --record a.json

The mask of the first frame is propagated to the others: every patch takes the masks of its nearest patches in
the first frame and in the last few. J is the Jaccard index of the objects, F the accuracy of their contours,
both as the official evaluation of the semi-supervised task measures them. --data.root has the folders of
DAVIS 2017: JPEGImages/480p/VIDEO/*.jpg, Annotations/480p/VIDEO/*.png and ImageSets/2017/SPLIT.txt.
"""

from __future__ import annotations

from typing import Any

from siamtransfer.cli import Command, run
from siamtransfer.evaluation.video.config import VideoConfig


def evaluate_videos(config: VideoConfig) -> dict[str, Any] | None:
    """Checks the options, evaluates, and returns the record."""
    config.check()
    from siamtransfer.evaluation.evaluator import run_evaluator
    from siamtransfer.evaluation.video.evaluate import evaluate

    return run_evaluator(evaluate, config)


main = Command("video", VideoConfig, evaluate_videos, __doc__)


if __name__ == "__main__":
    run(main)
