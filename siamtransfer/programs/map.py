"""Lays the images of a set out on a plane, similar ones together, with thumbnails and neighbours.

    siamtransfer map runs/demo/checkpoint.pth map.npz                     the images that the run is scored on
    siamtransfer map dino.pth map.npz --data.name folder --data.root photos
    siamtransfer map dino.pth map.npz --data.name flat --data.root photos      images without labels
    siamtransfer report runs/demo map.npz report.html                     a page to look around in it

Features go through PCA to 50 components, and t-SNE puts them on the plane. Which images are neighbours is
found by the features themselves, and the record says how many of the neighbours are so on the plane, too:
distances between far groups, and the sizes of groups, mean nothing.
"""

from __future__ import annotations

from typing import Any

from siamtransfer.cli import Command, run
from siamtransfer.image_map.config import MapConfig


def map_images(config: MapConfig) -> dict[str, Any] | None:
    """Checks the options, makes the map, and returns the record on rank 0."""
    config.check()
    from siamtransfer.evaluation.evaluator import run_evaluator
    from siamtransfer.image_map.evaluate import evaluate

    return run_evaluator(evaluate, config)


main = Command("map", MapConfig, map_images, __doc__)


if __name__ == "__main__":
    run(main)
