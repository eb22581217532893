"""The whole way on embedded images: pretrain, score by kNN and linear probe, convert for Detectron2.

    python scripts/demo.py [--run DIR] [-- --section.key VALUE ...]      what `make demo` runs

Each stage is one of the project's programs, called as a user would; the table at the end is read from the
JSON documents they print. Options after `--` go to pretrain/main.py. A demo that was interrupted goes on
where it was.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from measuring import stage

from siamtransfer.cli import run
from siamtransfer.utils.log import say


def main() -> dict[str, Any]:
    """Runs the four programs and prints the table; returns its numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", default="runs/demo", help="folder of the run (default: runs/demo)")
    parser.add_argument("options", nargs="*", help="after `--`: options of pretrain/main.py")
    asked = parser.parse_args()
    folder, began = Path(asked.run), time.monotonic()
    checkpoint, converted = folder / "checkpoint.pth", folder / "backbone_d2.pkl"

    pretrained = stage("pretrain/main.py", "--run.dir", folder, "--resume", *asked.options)
    knn = stage("eval/knn.py", checkpoint, "--k", 20)
    linear = stage("eval/linear.py", checkpoint)
    conversion = stage("convert/to_d2.py", checkpoint, converted, "--force")
    stage("scripts/plot_run.py", folder, folder / "curves.png")

    top1 = "knn/k=20/T=0.07/top1"
    metrics = {
        "raw pixels, kNN (k=20)": pretrained["metrics"][f"baseline/pixels/{top1}"],
        "untrained backbone, kNN (k=20)": pretrained["metrics"][f"baseline/untrained/{top1}"],
        "SimSiam, kNN (k=20)": knn["metrics"][top1],
        "SimSiam, linear probe": linear["metrics"]["linear/top1"],
    }
    say("\nTop-1 accuracy in % on one-object Fashion Scenes (10 classes, chance 10)")
    for name, value in metrics.items():
        say(f"  {name:34}{value:7.2f}")
    say(f"Health of the projections (std x sqrt(d), 1 is healthy): {pretrained['metrics']['health/std']:.2f}")
    say(f"Detectron2 file: {converted} and {converted.with_suffix('.yaml').name}")
    parity = {name: value for name, value in conversion["metrics"].items() if name.startswith("parity/")}
    for name, value in parity.items():
        say(f"  {name:52}{value:10.2e}")
    say(f"Curves: {folder / 'curves.png'}")
    seconds = time.monotonic() - began
    say(f"The demo took {seconds:.0f} s.")
    return {"task": "demo", "metrics": {**metrics, **parity, "seconds": seconds}}


if __name__ == "__main__":
    run(main)
