"""Detection on the embedded scenes: a small Mask R-CNN with and without a pretrained backbone.

    python scripts/detection_demo.py [--run DIR] [--trials N]          what `make detection-demo` runs

It converts the checkpoint of `make demo`, and fine-tunes with it and without it, with the same schedule and
seeds. The table at the end has the paired difference. After an interruption, run it again: it continues.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from measuring import HERE, difference_over_trials, mean_and_std, pretrained_in, stage

from siamtransfer.cli import run
from siamtransfer.distributed.runtime import cpu_count
from siamtransfer.utils.log import say

CONFIG = HERE / "configs" / "detection" / "scenes-fpn.yaml"
TASK_NAMES = {"detection": "box", "segmentation": "mask"}


def main() -> dict[str, Any]:
    """Runs the two programs and prints the table; returns its numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", default="runs/demo", help="folder of the pretraining (default: runs/demo)")
    parser.add_argument("--trials", type=int, default=3, help="trainings of each (default: 3)")
    parser.add_argument("settings", nargs="*", help="after `--`: Detectron2's keys, as KEY VALUE pairs")
    args = parser.parse_args()
    folder, began = Path(args.run), time.monotonic()
    checkpoint, converted = pretrained_in(folder), folder / "backbone_d2.pkl"

    stage("convert/to_d2.py", checkpoint, converted, "--force")
    results = stage(
        "eval/detection.py", "--config", CONFIG, "--weights", converted, "--compare", "scratch",
        "--trials", args.trials, "--at-once", cpu_count(),
        "--run", folder / "detection", "--resume", *args.settings,
    )["metrics"]  # fmt: skip

    say(f"\nAP in % on many-object Fashion Scenes, {args.trials} trials of each (mean ± standard deviation)")
    say(f"  {'':6}{'SimSiam':>15}{'untrained':>15}{'difference':>13}   95 % interval")
    metrics: dict[str, float] = {}
    for task, name in TASK_NAMES.items():
        pretrained, untrained = (mean_and_std(results, f"{side}{task}/AP") for side in ("", "other/"))
        say(f"  {name:6}{pretrained:>15}{untrained:>15}{difference_over_trials(results, f'{task}/AP')}")
        metrics |= {
            number: value for number, value in results.items() if number.startswith(f"compare/{task}/AP")
        }
    seconds = time.monotonic() - began
    picture = folder / "detection" / converted.stem / "trial-0" / "predictions.png"
    say(f"Predictions beside the annotations: {picture}")
    say(f"The demo took {seconds:.0f} s.")
    return {"task": "detection-demo", "metrics": {**metrics, "seconds": seconds}}


if __name__ == "__main__":
    run(main)
