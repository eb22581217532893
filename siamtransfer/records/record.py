"""One record per measurement: the numbers, the protocol that produced them, and where they came from."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import siamtransfer


def record(
    task: str, metrics: dict[str, float], protocol: dict[str, Any], **provenance: Any
) -> dict[str, Any]:
    """Builds the JSON document that a program prints last.

    `metrics` is flat (`knn/k=20/T=0.07/top1`), accuracies and APs are percentages. `protocol` holds every
    choice that moves the numbers, `provenance` what they were computed from (weights digest, data
    fingerprint …); versions, commit, command and time are added here.
    """
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
        },
    }


def versions() -> dict[str, str]:
    """The versions of everything that can move a number; absent libraries are left out."""
    found = {"python": platform.python_version(), "siamtransfer": siamtransfer.__version__}
    for name in (
        "torch",
        "torchvision",
        "numpy",
        "pillow",
        "simplejpeg",
        "timm",
        "scikit-learn",
        "faiss-gpu",
        "faiss-cpu",
    ):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


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
