"""The ImageNet configurations as the rehearsal runs them: one rank's share of the batch, a narrow network."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.rehearsal.watch import Watched, run_watched

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "configs" / "pretrain"
SIMSIAM = "imagenet-resnet50-100ep"


@dataclass(frozen=True)
class Rehearsal:
    """What all stages share.

    Attributes:
        folder: for the tree, the runs and the logs.
        images, queries, classes: of the tree.
        share: images of a rank in a step; None for those that the configuration's header states.
        steps: of each run, before and after the resume.
        bank: size of the kNN check's bank; None for the configuration's.
        limit: GiB of host memory that a rank may use.
    """

    folder: Path
    images: int
    queries: int
    classes: int
    share: int | None
    steps: int
    bank: int | None
    limit: float

    @property
    def tree(self) -> Path:
        """The ImageNet-shaped tree."""
        return self.folder / "imagenet"

    def log(self, name: str) -> Path:
        """Where the output of a stage goes."""
        (self.folder / "logs").mkdir(parents=True, exist_ok=True)
        return self.folder / "logs" / f"{name}.log"


def configuration_names() -> list[str]:
    """The ImageNet configurations that the project ships."""
    return sorted(path.stem for path in FOLDER.glob("imagenet-*.yaml"))


def share_of(name: str) -> int:
    """Images of one rank in one step, as the header of the configuration states them."""
    header = re.search(r"(\d+) images each", (FOLDER / f"{name}.yaml").read_text())
    if header is None:
        raise ValueError(f"the header of {name} does not say how many images a GPU takes")
    return int(header[1])


def pretrain_words(
    rehearsal: Rehearsal, name: str, *, run: str, ranks: int = 1, knn: bool = False
) -> list[str]:
    """pretrain/main.py and its options for `ranks` ranks of the configuration `name`."""
    narrow = ["--backbone.name=vit_tiny_patch16_224"] if "vits16" in name else ["--backbone.width=16"]
    bank = [] if rehearsal.bank is None else [f"--monitor.knn-bank={rehearsal.bank}"]
    return [
        str(ROOT / "pretrain" / "main.py"),
        f"--config={FOLDER / name}.yaml",
        f"--data.root={rehearsal.tree}",
        f"--run.dir={rehearsal.folder / 'runs' / run}",
        f"--optim.batch-size={ranks * (rehearsal.share or share_of(name))}",
        "--hardware.device=cpu",
        "--log.every=1",
        *narrow,
        *(bank if knn else ["--monitor.knn-every=0"]),
    ]


def run_until(
    rehearsal: Rehearsal, words: list[str], *, run: str, log: str, steps: int, ranks: int = 1
) -> Watched:
    """Runs pretrain/main.py until `steps` steps are in the metrics, and stops it by SIGTERM.

    `times` has the seconds until the first step (`first`), until `steps` (`last`), and until a row of the kNN
    baselines (`knn`).
    """
    metrics = rehearsal.folder / "runs" / run / "metrics.jsonl"
    launcher = (
        ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    )
    moments: dict[str, Callable[[], bool]] = {
        "knn": lambda: any("baseline" in key for row in rows(metrics) for key in row),
        "first": lambda: any("loss" in row for row in rows(metrics)),
        "last": lambda: any("loss" in row and int(row["step"]) >= steps for row in rows(metrics)),
    }
    return run_watched(
        [sys.executable, *launcher, *words],
        rehearsal.log(log),
        limit=rehearsal.limit,
        moments=moments,
        stop_at="last",
    )


def rows(metrics: Path) -> list[dict[str, float]]:
    """The complete rows of a metrics.jsonl; none where there is no file yet."""
    try:
        lines = metrics.read_text().splitlines(keepends=True)
    except OSError:
        return []
    return [json.loads(line) for line in lines if line.endswith("\n")]
