"""The page of many records: seconds, megabytes and memory of `siamtransfer report`.

    python -m benchmarks.report [--records 50] [--samples 10000] [--classes 100] [--tasks 1] [--keep FOLDER]

Made-up backbones answer right with a chance of their own; each has a record of kNN a task, with predictions
and confidences. The program runs in a process of its own, start-up included. The last line is one JSON
document.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from siamtransfer.metrics.intervals import wilson_interval
from siamtransfer.records.predictions import Predictions, publish
from siamtransfer.utils.log import say
from siamtransfer.utils.strict_json import to_json

SETTING = "k=20/T=0.07"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, size in (("records", 50), ("samples", 10_000), ("classes", 100), ("tasks", 1)):
        parser.add_argument(f"--{name}", type=int, default=size)
    parser.add_argument("--keep", default=None, help="a folder for records and page that stays")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(asked.keep or temporary)
        write_records(folder / "records", asked.records, asked.samples, asked.classes, asked.tasks)
        metrics = measure(folder)
    for name, value in metrics.items():
        say(f"{name:24} {value:10.2f}")
    print(to_json({"task": "benchmark/report", "metrics": metrics, "protocol": vars(asked)}))


def write_records(folder: Path, records: int, samples: int, classes: int, tasks: int) -> None:
    """Writes `records` records in all, of `tasks` tasks on sets of their own."""
    generator = np.random.default_rng(0)
    backbones = -(-records // tasks)
    for task in range(tasks):
        labels = generator.integers(0, classes, samples)
        hard = generator.normal(size=samples)
        for number in range(min(backbones, records - task * backbones)):
            skill = 0.6 - 0.5 * number / backbones + hard + generator.normal(size=samples)
            predicted = np.where(skill > 0, labels, generator.integers(0, classes, samples))
            confidences = (1 / (1 + np.exp(-skill))).astype(np.float32)
            name = f"backbone-{number:02}"
            record = record_of(name, task, classes, labels, predicted)
            path = folder / name / f"knn-{task}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            publish(record, Predictions(labels, {SETTING: predicted}, {SETTING: confidences}), str(path))


def record_of(
    name: str, task: int, classes: int, labels: np.ndarray, predicted: np.ndarray
) -> dict[str, Any]:
    """A record as the evaluator of kNN writes it."""
    hits = int((labels == predicted).sum())
    low, high = (100 * end for end in wilson_interval(hits, len(labels)))
    before = f"knn/{SETTING}"
    return {
        "task": "knn",
        "metrics": {
            f"{before}/top1": 100 * hits / len(labels),
            f"{before}/ci95_low": low,
            f"{before}/ci95_high": high,
        },
        "protocol": {"train": f"made-{task}/train", "test": f"made-{task}/test", "metric": "top1", "k": [20]},
        "provenance": {
            "backbone": f"{name}.pth",
            "weights_digest": f"{name:0>64}",
            "test_fingerprint": f"made-{task}",
            "classes": [f"class {number}" for number in range(classes)],
            "command": ["siamtransfer", "knn", f"{name}.pth"],
            "time": "2026-01-01T00:00:00+00:00",
        },
    }


def measure(folder: Path) -> dict[str, float]:
    """Seconds of the whole process, of the page alone, its megabytes, and the most memory."""
    page = folder / "page.html"
    begin = time.perf_counter()
    command = [sys.executable, "-m", "siamtransfer", "report", str(folder / "records"), str(page)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    seconds = time.perf_counter() - begin
    record = json.loads(done.stdout.splitlines()[-1])
    return {
        "process s": seconds,
        "page s": record["metrics"]["report/seconds"],
        "page MB": page.stat().st_size / 1e6,
        "peak memory MB": record["provenance"].get("cost", {}).get("peak_memory_bytes", float("nan")) / 1e6,
    }


if __name__ == "__main__":
    main()
