"""The record of a measurement: the numbers, the protocol that gave them, and what they were computed from."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from siamtransfer.metering.meter import current_cost
from siamtransfer.version import __version__

LIBRARIES = (
    *("torch", "torchvision", "numpy", "pillow", "simplejpeg", "timm", "scikit-learn"),
    *("tifffile", "imagecodecs", "pillow-heif", "pydicom"),
    *("faiss-gpu", "faiss-cpu"),
)


def record(
    task: str, metrics: dict[str, float], protocol: dict[str, Any], **provenance: Any
) -> dict[str, Any]:
    """Builds the JSON document that a program prints last.

    Args:
        task: name of the program.
        metrics: numbers by name (`knn/k=20/T=0.07/top1`); accuracies and average precisions in percent.
        protocol: every choice that moves the numbers.
        provenance: what the numbers were computed from (digest of the weights, fingerprint of the data ...);
            versions, commit, command, time and, where a meter runs, the cost are added here.
    """
    cost = current_cost()
    return {
        "task": task,
        "metrics": metrics,
        "protocol": protocol,
        "provenance": {
            **provenance,
            "versions": versions(),
            "commit": commit(),
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
            "time": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            **({} if cost is None or "cost" in provenance else {"cost": cost}),
        },
    }


def versions() -> dict[str, str]:
    """The versions of Python, this package and the installed libraries that can move a number."""
    installed = {"python": platform.python_version(), "siamtransfer": __version__}
    for name in LIBRARIES:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def commit() -> str | None:
    """The git commit of this checkout, with `+changes` when files differ from it; None outside git."""
    folder = Path(__file__).parent
    try:
        head = _git(folder, "rev-parse", "HEAD")
        return head + ("+changes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()
