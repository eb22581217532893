"""What the robustness evaluator says at the end: a line for each test set and each corruption."""

from __future__ import annotations

from siamtransfer.evaluation.robustness.scores import TASK, Versions
from siamtransfer.utils.log import say


def say_set(name: str, metrics: dict[str, float], images: int) -> None:
    """Top-1 of one set, with its interval."""
    say(f"{name}: {_value(metrics, f'{TASK}/{name}')} of {images:,} images right")


def say_versions(versions: Versions, metrics: dict[str, float]) -> None:
    """The mean over all versions, and a line for each corruption with its severities."""
    prefix, severities = f"{TASK}/{versions.name}", versions.severities
    drop = metrics.get(f"{prefix}/mean/drop")
    loss = "" if drop is None else f", {drop:.2f} points less than clean"
    count = len(versions.corruptions)
    say(
        f"{versions.name}: {_value(metrics, f'{prefix}/mean')} on average over {count} "
        f"corruption{'s' * (count > 1)}, severity {', '.join(map(str, severities))}{loss}"
    )
    for corruption in versions.corruptions:
        row = [metrics[f"{prefix}/{corruption}/severity={severity}/top1"] for severity in severities]
        say(f"  {corruption:18} " + " ".join(f"{value:6.2f}" for value in row) + " %")
    if f"{prefix}/mCE" in metrics:
        say(f"{versions.name}: mCE {metrics[f'{prefix}/mCE']:.2f} %, AlexNet being 100")


def _value(metrics: dict[str, float], prefix: str) -> str:
    low, high = (metrics[f"{prefix}/ci95_{end}"] for end in ("low", "high"))
    return f"{metrics[f'{prefix}/top1']:.2f} % ({low:.2f} to {high:.2f})"
