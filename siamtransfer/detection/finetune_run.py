"""One fine-tuning run: what it starts from, for which task, in which folder, and its result.

Both engines take the same `FinetuneRun` and leave result.json and the task's outputs in its folder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from siamtransfer.checkpoints.read_backbone import ReadBackbone
from siamtransfer.checkpoints.reading import Reading
from siamtransfer.detection.detectron2.weights import ConvertedWeights
from siamtransfer.detection.tasks.task import Outputs, Task
from siamtransfer.utils.files import write_checked_text
from siamtransfer.utils.json_file import read_checked_json
from siamtransfer.utils.log import say
from siamtransfer.utils.strict_json import to_json

RESULT = "result.json"


@dataclass(frozen=True, eq=False)
class Initialization:
    """The weights that a training starts from, with the settings that belong to them.

    name: for messages and folders; settings: Detectron2's CfgNode, or for torchvision a dict of full key to
    value; weights: None from scratch, and where the settings name a file of Detectron2's; digest: of the
    weights, None from scratch; protocol: what the engine changed, for the record.
    """

    name: str
    settings: Any
    weights: ConvertedWeights | ReadBackbone | None
    digest: str | None
    protocol: dict[str, Any] = field(default_factory=dict)

    @property
    def reading(self) -> Reading | None:
        """How the weights are read; None from scratch, and for files of Detectron2's."""
        return self.weights.reading if self.weights is not None and self.digest is not None else None

    @property
    def assumptions(self) -> list[str]:
        """What was assumed of the reading, one sentence each."""
        return self.reading.assumptions() if self.reading else []

    def remarks(self) -> list[str]:
        """What a reader of the numbers has to know before they come, one sentence each."""
        scaled = [f"{key}: {old} -> {new}" for key, (old, new) in self.protocol.get("scaled", {}).items()]
        not_comparable = self.protocol.get("not_comparable")
        return [
            *(f"{self.name}: {sentence}" for sentence in self.assumptions),
            *self.protocol.get("norms_changed", []),
            *([f"scaled: {'; '.join(scaled)}"] if scaled else []),
            *([f"not comparable with published numbers: {not_comparable}"] if not_comparable else []),
        ]


@dataclass(frozen=True, eq=False)
class FinetuneRun:
    """One training and its evaluation.

    name: for messages; folder: of this run alone; seed: of everything random; overrides: settings that
    differ from the initialization's, by full key; evaluate_only: score the trained model in the folder
    again.
    """

    initialization: Initialization
    name: str
    folder: Path
    seed: int
    task: Task
    overrides: Mapping[str, float] = field(default_factory=dict)
    evaluate_only: bool = False

    def result(self) -> dict[str, Any] | None:
        """The content of result.json (metrics, seed and more); None before the run is complete, and, with a
        remark, where the file is damaged: the run is then scored again."""
        path = self.folder / RESULT
        try:
            result = read_checked_json(path)
            metrics = dict(result["metrics"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            say(f"{path} is damaged ({error}): {self.name} is scored again")
            return None
        # JSON has no NaN, which is the AP of a class without objects.
        metrics = {name: math.nan if value is None else value for name, value in metrics.items()}
        return {**result, "metrics": metrics}

    def write_result(self, result: dict[str, Any], outputs: Outputs) -> None:
        """Writes the outputs, then result.json, which marks the run as complete."""
        outputs.write(self.folder)
        write_checked_text(self.folder / RESULT, to_json(result) + "\n")
