"""One experiment with one seed: pretrained, scored, and what is kept of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from siamtransfer.experiments.suites import HELD_OUT, TEST, Experiment, Score
from siamtransfer.training.journal_rows import read_rows
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import write_text
from siamtransfer.utils.strict_json import to_json

if TYPE_CHECKING:
    from siamtransfer.config import PretrainConfig

K, TEMPERATURE = 20, 0.07
HEALTH = ("health/std", "health/effective_rank", "health/rank_share")
HELD_OUT_IMAGES = 2000
_SCENES = ("fashion-scenes", "fashion-pairs", "fashion-frames")
CURVES = ("loss", "health/", "knn/", "gradient/", "gradient_norm/")
"""The rows of a journal that are kept, by how they begin."""


@dataclass(frozen=True)
class Cell:
    """An experiment with a seed, and where its files are.

    Attributes:
        runs: the folder of all runs.
        scores: further measurements.
        options: words for pretrain/main.py, in every run.
    """

    experiment: Experiment
    seed: int
    runs: Path
    scores: tuple[Score, ...] = ()
    options: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """SUITE/NAME seed N."""
        return f"{self.experiment.id} seed {self.seed}"

    @property
    def folder(self) -> Path:
        """Of the run."""
        return self.runs / self.experiment.suite / self.experiment.name / f"seed-{self.seed}"

    @property
    def log(self) -> Path:
        """What the programs said."""
        return self.folder.with_suffix(".log")

    @property
    def record(self) -> Path:
        """What is kept."""
        return self.folder.with_suffix(".json")

    @property
    def words(self) -> list[str]:
        """The words of pretrain/main.py."""
        configs = [word for file in self.experiment.files for word in ("--config", str(file))]
        return [*configs, *self.options, "--run.seed", str(self.seed), "--run.dir", str(self.folder)]


def measure(cell: Cell) -> None:
    """Pretrains and scores a cell and writes its record; runs in a process of its own.

    Raises:
        UserError: a setting does not allow the run.
    """
    from siamtransfer.api import pretrain
    from siamtransfer.cli import Command
    from siamtransfer.config import PretrainConfig
    from siamtransfer.utils.log import print_messages

    print_messages()
    began = time.monotonic()
    config = Command("experiments", PretrainConfig, lambda _: None, "").parse(cell.words)
    result = pretrain(config, resume=True)
    assert result is not None
    numbers = {name: value for name, value in result.metrics.items() if "top1" in name}
    numbers[HELD_OUT] = held_out_accuracy(result.checkpoint, config)
    rows = read_rows(cell.folder / "metrics.jsonl")
    health = [row for row in rows if HEALTH[0] in row]
    numbers |= {name: health[-1][name] for name in HEALTH if health}
    for each in cell.scores:
        numbers[each.name] = score(each, cell)
    kept = {
        "experiment": cell.experiment.id,
        "seed": cell.seed,
        "settings": cell.experiment.digest,
        "options": list(cell.options),
        "numbers": numbers,
        "alarms": result.metrics.get("collapse_alarms", 0),
        "curves": curves_of(rows),
        "seconds": round(time.monotonic() - began, 1),
        "versions": result.provenance["versions"],
        "commit": result.provenance["commit"],
    }
    write_text(cell.record, to_json(kept) + "\n")


def held_out_accuracy(checkpoint: Path, config: PretrainConfig) -> float:
    """kNN accuracy in percent of HELD_OUT_IMAGES images of the train split after those of the run, whose bank
    is the run's images.

    The embedded pairs have the scenes as their first column, so they are scored on it.

    Raises:
        UserError: the images are no embedded scenes, of which there are as many as are asked for.
    """
    import numpy as np

    from siamtransfer.checkpoints.read_backbone import load_backbone
    from siamtransfer.data.registry import open_images
    from siamtransfer.data.subset import Subset
    from siamtransfer.distributed.runtime import start_runtime
    from siamtransfer.features.extract import evaluation_transform
    from siamtransfer.pretraining.knn_scorer import KnnScorer

    data = config.data
    if data.name not in _SCENES or data.count is None:
        raise UserError(
            f"experiments hold out scenes beyond data.count, but data.name is {data.name}: choose one of "
            f"{', '.join(_SCENES)}, with data.count"
        )
    images = open_images(_SCENES[0], split="train", size=data.size, count=data.count + HELD_OUT_IMAGES)
    numbers = np.arange(len(images))
    backbone, _ = load_backbone(checkpoint)
    recipe = config.views.build()
    transform = evaluation_transform(recipe.views[0].size, data.size, recipe.mean, recipe.std)
    with start_runtime("cpu", "float32", config.hardware.threads) as runtime:
        scorer = KnnScorer(
            Subset(images, numbers[: data.count]),
            Subset(images, numbers[data.count :]),
            transform,
            runtime,
            k=K,
            temperature=TEMPERATURE,
        )
        return scorer.score(backbone.eval())[TEST]


def curves_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[list[float]]]:
    """For each number of a journal that CURVES names, its points [step, value]."""
    curves: dict[str, list[list[float]]] = {}
    for row in rows:
        for name, value in row.items():
            if name.startswith(CURVES) and value is not None:
                curves.setdefault(name, []).append([row["step"], value])
    return curves


def score(of: Score, cell: Cell) -> float:
    """The number of a further measurement.

    Raises:
        UserError: a program refuses, or the last one's record lacks the number.
    """
    from siamtransfer.cli.main import program

    record: Mapping[str, Any] | None = None
    for name, *words in of.commands:
        record = program(name)([word.replace("{run}", str(cell.folder)) for word in words])
    metrics = {} if record is None else record["metrics"]
    if of.metric not in metrics:
        raise UserError(f"{of.name}: {name} gives no {of.metric}; its numbers are {', '.join(metrics)}")
    return float(metrics[of.metric])
