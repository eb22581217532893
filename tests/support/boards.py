"""Records of made-up backbones on disk, as evaluators write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from siamtransfer.records.predictions import Kept, Predictions, publish
from siamtransfer.records.record import record
from siamtransfer.records.sample_values import SampleValues

SETTING = "k=20/T=0.07"


def write_knn(path: Path, name: str, right: np.ndarray, /, **changes: Any) -> Path:
    """A record of kNN with predictions that are right where bool[Q] says; `changes` go into the protocol, the
    provenance (keys that it has) or the labels."""
    labels = changes.pop("labels", np.arange(len(right)) % 5)
    kept = Predictions(labels, {SETTING: np.where(right, labels, labels + 1)})
    top1 = 100 * float(right.mean())
    metrics = {f"knn/{SETTING}/top1": top1, f"knn/{SETTING}/ci95_low": top1 - 2}
    metrics[f"knn/{SETTING}/ci95_high"] = top1 + 2
    return write(path, "knn", metrics, kept, name, **changes)


def write(
    path: Path,
    task: str,
    metrics: dict[str, float],
    kept: Kept | None,
    name: str,
    /,
    *,
    time: str = "2026-01-01T00:00:00+00:00",
    command: list[str] | None = None,
    without_predictions: bool = False,
    facts: dict[str, Any] | None = None,
    further: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """A record of a task on the set `made/test`; `further` entries go into its provenance."""
    protocol: dict[str, Any] = {
        "train": "made/train",
        "test": "made/test",
        "transform": {"crop": 224, "mean": [0.5], "std": [0.2]},
    }
    provenance: dict[str, Any] = {
        "backbone": f"runs/{name}/checkpoint.pth",
        "architecture": {"name": "resnet50"},
        "branch": None,
        "weights_digest": f"weights of {name}",
        "reading": {"channels": {"value": "rgb", "source": "assumed"}},
        "train_fingerprint": "train",
        "test_fingerprint": "test",
    }
    provenance |= further or {}
    for key, value in changes.items():
        (provenance if key in provenance else protocol)[key] = value
    made = record(task, metrics, protocol, **provenance)
    made["provenance"] |= (facts or {}) | {
        "time": time,
        "command": command
        or ["siamtransfer", task, str(provenance["backbone"]), "--record", str(path), "--device", "cpu"],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    publish(made, None if without_predictions else kept, str(path))
    return path


def answers(seed: int, *chances: float, samples: int = 400) -> np.ndarray:
    """bool[B, Q]: which samples each of B backbones answers right, with these chances; what is hard for one
    is hard for the others, too."""
    generator = np.random.default_rng(seed)
    hard = generator.normal(size=samples)
    own = generator.normal(size=(len(chances), samples))
    scores = (hard + own) / np.sqrt(2)
    limits = stats.norm.ppf(chances)
    right: np.ndarray = scores < limits[:, None]
    return right


def sample_values(**settings: np.ndarray) -> SampleValues:
    """Values of samples; settings that end in `rmse` are errors."""
    named = {name.replace("__", "/"): values for name, values in settings.items()}
    errors = frozenset(name for name in named if name.endswith("rmse"))
    return SampleValues(np.arange(len(next(iter(named.values())))), named, errors)
