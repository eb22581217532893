"""The time of the linear probes beside that of what they replace.

    python -m benchmarks.linear [--rows 4500] [--dim 512] [--classes 10] [--images 512] [--heads 50]

In one run: the 45-point grid of logistic regression against 45 fits of scikit-learn on the same features
(with the best accuracy of either on held-out rows); a sweep of many heads against one head, on crops and
flips through a ResNet-18; and many heads against as many single runs on kept features. The last line is one
JSON document.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression as SklearnRegression
from torch import Tensor

from siamtransfer.backbones.architecture import build_backbone
from siamtransfer.data import open_images
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.linear.augmented_images import AugmentedImages, crops_and_flips
from siamtransfer.evaluation.linear.classifier_bank import ClassifierBank, ClassifierSetting
from siamtransfer.evaluation.linear.logistic import LogisticRegression, top_accuracy
from siamtransfer.evaluation.linear.train import (
    AugmentedFeatures,
    ClassifierSchedule,
    FeatureBatches,
    KeptFeatures,
    train_heads,
)
from siamtransfer.features.extract import Transform
from siamtransfer.utils.log import say
from siamtransfer.utils.strict_json import to_json

STRENGTHS = np.logspace(-6, 5, 45)
ALONE = Runtime(torch.device("cpu"), torch.float32)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = {"rows": 4500, "dim": 512, "classes": 10, "images": 512, "heads": 50, "epochs": 5}
    for name, size in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=size)
    args = parser.parse_args()
    metrics = grid(args.rows, args.dim, args.classes)
    metrics |= augmented(args.images, args.heads)
    metrics |= kept(args.rows, args.dim, args.classes, args.heads, args.epochs)
    for name, value in metrics.items():
        say(f"{name:44} {value:8.2f}")
    print(to_json({"task": "benchmark/linear", "metrics": metrics, "protocol": vars(args)}))


def features(rows: int, dim: int, classes: int) -> tuple[Tensor, Tensor]:
    """Like a backbone's: not negative, correlated, over two decades of variance; classes overlap."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(0, classes, (rows,), generator=generator)
    centres = 0.6 * torch.randn(classes, dim, generator=generator)
    mix = torch.randn(dim, dim, generator=generator) / dim**0.5 * torch.logspace(0, -2, dim)
    return ((centres[y] + 3 * torch.randn(rows, dim, generator=generator)) @ mix).relu(), y


def grid(rows: int, dim: int, classes: int) -> dict[str, float]:
    """All strengths by our fits and by scikit-learn's (with its own tolerance, 1000 steps)."""
    h, y = features(rows + 2000, dim, classes)
    train, test = slice(0, rows), slice(rows, None)
    begin, best, start = time.perf_counter(), 0.0, None
    problem = LogisticRegression(h[train], y[train], dtype=torch.float32)
    for strength in STRENGTHS:
        fit, start = problem.fit(float(strength), start=start, max_steps=200, tolerance=1e-4)
        best = max(best, top_accuracy(fit, h[test], y[test]))
    grid_seconds = time.perf_counter() - begin
    sklearn_best, x = 0.0, h.double().numpy()
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for strength in STRENGTHS:
            model = SklearnRegression(C=strength, max_iter=1000).fit(x[train], y[train].numpy())
            sklearn_best = max(sklearn_best, 100 * model.score(x[test], y[test].numpy()))
    sklearn_seconds = time.perf_counter() - begin
    return {
        "grid of 45 s": grid_seconds,
        "45 fits of scikit-learn s": sklearn_seconds,
        "scikit-learn / grid": sklearn_seconds / grid_seconds,
        "grid best accuracy %": best,
        "scikit-learn best accuracy %": sklearn_best,
    }


def augmented(images: int, heads: int) -> dict[str, float]:
    """Crops and flips of 64 pixels through a ResNet-18."""
    scenes = open_images("fashion-scenes", size=64, count=images)
    assert scenes.labels is not None
    labels, transform = torch.from_numpy(scenes.labels), Transform(64, None, (0.5,) * 3, (0.25,) * 3)
    backbone = build_backbone("resnet18").to(memory_format=torch.channels_last)

    def source() -> FeatureBatches:
        return AugmentedFeatures(
            backbone,
            AugmentedImages(scenes, labels, np.arange(images), crops_and_flips(transform), 128, ALONE),
            128,
        )

    single = best_of(3, lambda: run(source(), backbone.dim, 10, lrs(1), 1))
    many = best_of(3, lambda: run(source(), backbone.dim, 10, lrs(heads), 1))
    return {
        "one head on augmented images s": single,
        f"{heads} heads on augmented images s": many,
        f"{heads} heads / one head, augmented": many / single,
    }


def kept(rows: int, dim: int, classes: int, heads: int, epochs: int) -> dict[str, float]:
    """Kept features: all heads at once, and one run after another."""
    h, y = features(rows, dim, classes)
    source = KeptFeatures(h, y, 256, ALONE)
    at_once = best_of(3, lambda: run(source, dim, classes, lrs(heads), epochs))
    begin = time.perf_counter()
    for lr in lrs(heads):
        run(source, dim, classes, [lr], epochs)
    single = time.perf_counter() - begin
    return {
        f"{heads} heads at once on kept features s": at_once,
        f"{heads} single runs on kept features s": single,
        "single runs / at once, kept": single / at_once,
    }


def lrs(heads: int) -> list[float]:
    return [float(lr) for lr in np.logspace(-4, 0, heads)]


def run(source: FeatureBatches, dim: int, classes: int, initial_lrs: list[float], epochs: int) -> None:
    bank = ClassifierBank([ClassifierSetting("sgd", lr) for lr in initial_lrs], dim, classes)
    quiet = Runtime(ALONE.device, ALONE.dtype, rank=0)
    train_heads({"output": bank}, source, lambda h, _: h, ClassifierSchedule(epochs, lambda *_: 1.0), quiet)


def best_of(times: int, work: Callable[[], None]) -> float:
    seconds = []
    for _ in range(times):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


if __name__ == "__main__":
    main()
