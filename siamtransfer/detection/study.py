"""A study: one or two initializations, fine-tuned for the same task with the same schedule and seeds.

The folder of a study has settings.json, which says what the study is, and a folder for each initialization
with a folder for each run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from siamtransfer.detection.engines import DetectionEngine
from siamtransfer.detection.finetune_run import FinetuneRun, Initialization
from siamtransfer.detection.lr_search import SearchGrid
from siamtransfer.detection.tasks.task import Task
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import write_checked_text
from siamtransfer.utils.json_file import read_checked_json
from siamtransfer.utils.log import say
from siamtransfer.utils.strict_json import to_json

SETTINGS = "settings.json"


@dataclass(frozen=True, eq=False)
class DetectionStudy:
    """What all runs of a study share.

    seeds: one trial each; grid: learning rates and weight decays to choose from, or None; evaluate_only:
    score the trained models again.
    """

    engine: DetectionEngine
    initializations: Sequence[Initialization]
    task: Task
    folder: Path
    seeds: range
    grid: SearchGrid | None = None
    evaluate_only: bool = False

    def run(self, overrides: Sequence[Mapping[str, float]]) -> list[list[dict[str, Any]]]:
        """The results of every initialization's trials, in the order of the seeds; complete runs are read.

        `overrides`: the settings that the search has chosen for each initialization.
        """
        runs = [
            FinetuneRun(
                initialization,
                f"{initialization.name}, seed {seed}",
                self.trial_folder(initialization, seed),
                seed,
                self.task,
                keys,
                self.evaluate_only,
            )
            for initialization, keys in zip(self.initializations, overrides, strict=True)
            for seed in self.seeds
        ]
        results = self.engine.run(runs)
        trials = len(self.seeds)
        return [results[first : first + trials] for first in range(0, len(results), trials)]

    def trial_folder(self, initialization: Initialization, seed: int) -> Path:
        """The folder of one trial."""
        return self.folder / initialization.name / f"trial-{seed}"

    def search(self, initialization: Initialization) -> dict[str, float]:
        """The learning rate and weight decay with the best headline metric on held-out training images, as
        settings; {} without a grid."""
        if self.grid is None:
            return {}
        task = self.task.hold_out(self.grid.held_out)
        runs = [
            FinetuneRun(
                initialization,
                f"{initialization.name}, rate {lr:g}, weight decay {weight_decay:g}",
                self.folder / initialization.name / "search" / f"rate-{lr:g}-decay-{weight_decay:g}",
                self.seeds[0],
                task,
                {"SOLVER.BASE_LR": lr, "SOLVER.WEIGHT_DECAY": weight_decay},
                self.evaluate_only,
            )
            for lr, weight_decay in self.grid.cells()
        ]
        scores = [result["metrics"][task.headline] for result in self.engine.run(runs)]
        best, run = max(zip(scores, runs, strict=True), key=lambda pair: pair[0])
        say(f"chosen on {task.test_name}: {run.name} with {task.measure} {best:.2f}")
        return dict(run.overrides)

    def claim_folder(self, *, resume: bool) -> None:
        """Writes settings.json, or compares it with that of the study that the folder holds.

        Raises:
            UserError: the folder holds a study and `resume` is not set, or another study, or a damaged one;
                or it holds none and there is nothing to evaluate.
        """
        path = self.folder / SETTINGS
        own = json.loads(to_json(self.identity()))
        if not path.is_file():
            if self.evaluate_only:
                raise UserError(f"--eval-only: {self.folder} holds no run; name the folder of one with --run")
            write_checked_text(path, to_json(own) + "\n")
            return
        if not resume and not self.evaluate_only:
            raise UserError(
                f"{self.folder} holds a run already: go on with it by --resume, or choose another --run"
            )
        saved = _read_settings(path)
        free = {"metric"} if self.evaluate_only else set()
        differing = [
            f"{key} {saved.get(key)!r} -> {own.get(key)!r}"
            for key in sorted((saved.keys() | own.keys()) - free)
            if saved.get(key) != own.get(key)
        ]
        if differing:
            raise UserError(
                f"the run in {self.folder} has another configuration ({'; '.join(differing)}): give it the "
                "same, or choose another --run"
            )

    def identity(self) -> dict[str, Any]:
        """Every choice that moves a number. The number of trials is not among them: it may grow."""
        digests = [initialization.digest or initialization.name for initialization in self.initializations]
        search = {}
        if self.grid is not None:
            search = {
                "search/rates": list(self.grid.lrs),
                "search/decays": list(self.grid.weight_decays),
                "search/held_out": self.grid.held_out,
            }
        return {
            "engine": self.engine.name,
            **self.task.identity(),
            **{f"weights/{index}": digest for index, digest in enumerate(digests)},
            **search,
            **self.engine.settings(self.initializations[0], self.task),
        }


def _read_settings(path: Path) -> dict[str, Any]:
    """The content of a study's settings.json."""
    try:
        saved = read_checked_json(path)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} is damaged ({error}): restore it from a copy, or choose another --run"
        ) from error
    if not isinstance(saved, dict):
        raise UserError(
            f"{path} holds no settings of a study: restore it from a copy, or choose another --run"
        )
    return saved
