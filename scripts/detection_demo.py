"""Detection on the embedded scenes: does a pretrained backbone help a small Mask R-CNN?

    python scripts/detection_demo.py [--run DIR] [--trials N]          what `make detection-demo` runs

Takes the checkpoint of `make demo`, converts it, and fine-tunes with it and without it, by the same schedule
and with the same seeds; the table at the end has the paired difference, whatever it is. A demo that was
interrupted goes on where it was.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from demo import HERE, stage

from siamtransfer.cli import run
from siamtransfer.distributed.runtime import cpu_count
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say

CONFIG = HERE / "configs" / "detection" / "scenes-fpn.yaml"
TASKS = {"detection": "box", "segmentation": "mask"}


def main() -> dict[str, Any]:
    """Runs the two programs and prints the table; returns its numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", default="runs/demo", help="folder of the pretraining (default: runs/demo)")
    parser.add_argument("--trials", type=int, default=3, help="trainings of each (default: 3)")
    parser.add_argument("settings", nargs="*", help="after `--`: Detectron2's keys, as KEY VALUE pairs")
    asked = parser.parse_args()
    folder, began = Path(asked.run), time.monotonic()
    checkpoint, converted = folder / "checkpoint.pth", folder / "backbone_d2.pkl"
    if not checkpoint.exists():
        raise UserError(
            f"there is no pretrained {checkpoint}: run `make demo` first, or name its folder by --run"
        )

    stage("convert/to_d2.py", checkpoint, converted, "--force")
    found = stage(
        "eval/detection.py", "--config", CONFIG, "--weights", converted, "--compare", "scratch",
        "--trials", asked.trials, "--at-once", cpu_count(),
        "--run", folder / "detection", "--resume", *asked.settings,
    )["metrics"]  # fmt: skip

    say(f"\nAP in % on many-object Fashion Scenes, {asked.trials} trials of each (mean ± standard deviation)")
    say(f"  {'':6}{'SimSiam':>15}{'untrained':>15}{'difference':>13}   95 % interval")
    metrics: dict[str, float] = {}
    for task, name in TASKS.items():
        pretrained, untrained = (spread(found, f"{side}{task}/AP") for side in ("", "other/"))
        key = f"compare/{task}/AP"
        low, high = found.get(f"{key}/ci95_low"), found.get(f"{key}/ci95_high")
        interval = f"{low:+.2f} to {high:+.2f}" if low is not None else "needs two trials or more"
        say(f"  {name:6}{pretrained:>15}{untrained:>15}{found[f'{key}/difference']:>+13.2f}   {interval}")
        metrics |= {number: value for number, value in found.items() if number.startswith(key)}
    seconds = time.monotonic() - began
    picture = folder / "detection" / converted.stem / "trial-0" / "predictions.png"
    say(f"Predictions beside the truth: {picture}")
    say(f"The demo took {seconds:.0f} s.")
    return {"task": "detection-demo", "metrics": {**metrics, "seconds": seconds}}


def spread(found: dict[str, float], number: str) -> str:
    """Mean and standard deviation, or the one value."""
    if f"{number}/mean" not in found:
        return f"{found[number]:.2f}"
    return f"{found[f'{number}/mean']:.2f} ± {found[f'{number}/std']:.2f}"


if __name__ == "__main__":
    run(main)
