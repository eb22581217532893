"""Records, runs and pictures on disk, made up, for tests of what is made of them.

Backbones answer right with a chance of their own, so the numbers of a record are those of the predictions
beside it, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from siamtransfer.metrics.intervals import wilson_interval
from siamtransfer.records.predictions import Predictions
from siamtransfer.records.sample_values import SampleValues
from siamtransfer.training.journal import Journal
from support.boards import SETTING as KNN
from support.boards import write

HOSTILE = '</script><img src=x onerror="window.hacked=1">&amp; 日本'
"""A name of a class or a file that must do nothing in a page."""
COST = {
    "seconds": 12.5,
    "images": 4000,
    "images_per_second": 320.0,
    "peak_memory_bytes": 3 << 30,
    "device": "cpu",
    "processes": 1,
}


def make_labels(samples: int, classes: int, seed: int = 0) -> np.ndarray:
    """int64[Q], every class about as often as any other."""
    return np.random.default_rng(seed).permutation(np.arange(samples) % classes)


def make_predictions(labels: np.ndarray, chance: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Predicted classes int64[Q] that are right with that chance, and else one of all classes; and
    confidences float32[Q]."""
    generator = np.random.default_rng(seed)
    guesses = generator.integers(0, labels.max() + 1, len(labels))
    predicted = np.where(generator.random(len(labels)) < chance, labels, guesses)
    confidences = np.clip(generator.normal(chance, 0.15, len(labels)), 0, 1).astype(np.float32)
    return predicted, confidences


def write_classification(
    path: Path,
    backbone: str,
    labels: np.ndarray,
    predicted: np.ndarray,
    confidences: np.ndarray | None = None,
    *,
    task: str = "linear",
    classes: Sequence[str] = (),
    cost: dict[str, Any] | None = None,
) -> None:
    """A record of a linear probe or of kNN, with its predictions."""
    setting = KNN if task == "knn" else "linear"
    before = f"knn/{setting}" if task == "knn" else "linear/top1"
    hits = int((labels == predicted).sum())
    low, high = (100 * end for end in wilson_interval(hits, len(labels)))
    metrics = {f"{before.removesuffix('/top1')}/top1": 100 * hits / len(labels)}
    metrics |= {f"{before}/ci95_low": low, f"{before}/ci95_high": high}
    kept = Predictions(labels, {setting: predicted}, {} if confidences is None else {setting: confidences})
    further = {"classes": list(classes), **({} if cost is None else {"cost": cost})}
    write(path, task, metrics, kept, backbone, metric="top1", further=further)


def write_robustness(
    path: Path, backbone: str, clean: float, kinds: Sequence[str] = ("fog", "noise")
) -> None:
    """A record of one head on clean images and on corrupted ones, which lose 4 points a severity,
    with the mean over these."""
    metrics = {"robustness/clean/top1": clean}
    for kind in (*kinds, "mean"):
        metrics |= {
            f"robustness/corrupted/{kind}/severity={severity}/top1": clean - 4 * severity
            for severity in (1, 3, 5)
        }
    ends = {f"{name.removesuffix('/top1')}/ci95_low": value - 2 for name, value in metrics.items()}
    ends |= {f"{name.removesuffix('/top1')}/ci95_high": value + 2 for name, value in metrics.items()}
    labels = make_labels(200, 2)
    kept = Predictions(labels, {"clean": np.where(np.arange(200) < 2 * clean, labels, 1 - labels)})
    write(path, "robustness", metrics | ends, kept, backbone, measured_set="clean")


def write_invariance(
    path: Path, backbone: str, accuracy: float, moved: float, task: str = "invariance", **protocol: Any
) -> None:
    """A record of images that are turned and greyed: features move by `moved` at the largest strength and by
    half of it before, and kNN loses 10 points each time. Raw pixels move by 1 and 0.5, and have 20 %."""
    metrics = {"invariance/clean/top1": accuracy, "baseline/pixels/invariance/clean/top1": 20.0}
    for name, strengths in {"rotation": (15, 180), "grey": (0.5, 1)}.items():
        for place, strength in enumerate(strengths, start=1):
            version = f"invariance/{name}/strength={strength:g}"
            metrics |= {f"{version}/relative": moved * place / 2, f"{version}/top1": accuracy - 10 * place}
            metrics |= {f"baseline/pixels/{version}/relative": place / 2}
            metrics |= {f"baseline/pixels/{version}/top1": 20.0}
    metrics["invariance/mean/top1"] = accuracy - 15
    ends = {f"{name}/ci95_low": value - 0.1 for name, value in metrics.items()}
    ends |= {f"{name}/ci95_high": value + 0.1 for name, value in metrics.items()}
    kept = SampleValues(np.arange(20), {"mean/top1": np.full(20, (accuracy - 15) / 100)})
    units = {"rotation": "degrees, either way", "grey": "share of the colour that is lost"}
    write(path, task, metrics | ends, kept, backbone, units=units, **protocol)


def write_run(folder: Path, steps: int = 2000, *, collapses: bool = False) -> None:
    """A folder of pretraining: config.json and a journal with loss, health and kNN."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"method": {"name": "simsiam"}}')
    generator = np.random.default_rng(steps)
    journal = Journal(folder, tensorboard=False)
    for step in range(0, steps, 10):
        done = step / steps
        journal.write(step, {"loss": -0.9 * done + 0.05 * generator.normal(), "lr": 0.05 * (1 - done)})
        if step % 100 == 0:
            std, share = (0.1, 0.2) if collapses and done >= 0.5 else (0.95, 0.8)
            health = {"health/std": std, "health/rank_share": share, "health/effective_rank": 100 * share}
            journal.write(step, {**health, "health/centre_norm": 0.1, "health/view_cosine": 0.9 * done})
        if step % 500 == 0:
            journal.write(step, {"knn/k=20/T=0.07/top1": 30 + 40 * done})
            if step == 0:
                journal.write(step, {"baseline/pixels/knn/k=20/T=0.07/top1": 34.0})
    journal.close()


def write_pictures(folder: Path, names: Sequence[str] = ("attention", "pca")) -> None:
    """Coloured clouds as PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    for place, name in enumerate(names):
        pixels = np.random.default_rng(place).integers(0, 255, (6, 9, 3), np.uint8)
        Image.fromarray(pixels).resize((450, 300)).save(folder / f"{name}.png")


def write_board(
    folder: Path,
    *,
    backbones: int = 3,
    samples: int = 600,
    classes: int = 10,
    tasks: Sequence[str] = ("knn", "linear"),
) -> None:
    """A folder as a suite leaves it: a folder a backbone with a record a task; the first class has a hostile
    name."""
    labels = make_labels(samples, classes)
    names = [HOSTILE, *(f"class-{number}" for number in range(1, classes))]
    for number in range(backbones):
        for place, task in enumerate(tasks):
            chance = 0.8 - 0.3 * number / backbones - 0.1 * place
            predicted, confidences = make_predictions(labels, chance, 100 * place + number)
            cost = {**COST, "seconds": 10.0 + 5 * number}
            path = folder / f"backbone-{number}" / f"{task}.json"
            write_classification(
                path,
                f"backbone-{number}",
                labels,
                predicted,
                confidences,
                task=task,
                classes=names,
                cost=cost,
            )
