"""The two ways to train a detector, behind one face: Detectron2, which published numbers are of, and
torchvision.

An engine prepares an arm (a backbone with the settings that belong to it), makes jobs of it (one training and
evaluation each, in a folder of its own), does the jobs and says what its protocol was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import yaml

from siamtransfer.checkpoints.baselines import RANDOM
from siamtransfer.checkpoints.formats import Normalisation
from siamtransfer.checkpoints.read_backbone import ReadBackbone, read_backbone
from siamtransfer.detection.data.datasets import DetectionData, register
from siamtransfer.detection.detectron2.compat import import_detectron2, is_installed
from siamtransfer.detection.detectron2.config import (
    build_settings,
    fit_to_data,
    fit_to_device,
    lay_weights,
    require_stated,
    what_differs,
)
from siamtransfer.detection.detectron2.jobs import PICTURE, RESULT, read_result, run_jobs
from siamtransfer.detection.detectron2.lr_scaling import not_comparable, scale_to
from siamtransfer.detection.detectron2.roi_heads import register_heads
from siamtransfer.detection.detectron2.trainer import Job
from siamtransfer.detection.detectron2.trunk import register_trunks
from siamtransfer.detection.detectron2.weights import ConvertedWeights, read_converted
from siamtransfer.detection.layered_config import COMMAND_LINE, LayeredConfig
from siamtransfer.detection.metrics.evaluate import ApKind
from siamtransfer.detection.metrics.pictures import draw_predictions
from siamtransfer.detection.torchvision.engine import NOT_COMPARABLE, train_and_evaluate
from siamtransfer.detection.torchvision.recipe import KNOWN, recipe_of
from siamtransfer.distributed.runtime import Runtime, start_runtime
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import RunLock, write_text
from siamtransfer.utils.log import say
from siamtransfer.utils.strict_json import to_json

SCRATCH = "scratch"


@dataclass(frozen=True, eq=False)
class Arm:
    """name: for people and folders; settings: the engine's own; weights: None for scratch or for a file that
    the settings name; digest: of the weights; protocol: what the engine made of the configuration."""

    name: str
    settings: Any
    weights: ConvertedWeights | ReadBackbone | None
    digest: str | None
    protocol: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """One training and its evaluation: the arm, name and folder, seed, data, metric, and keys that a search
    sets."""

    arm: Arm
    name: str
    folder: Path
    seed: int
    data: DetectionData
    metric: ApKind
    keys: Mapping[str, float] = field(default_factory=dict)


class Detectron2Engine:
    """Detectron2's trainer, on `gpus` GPUs or the CPU, the schedule rewritten for `scale` GPUs where
    given."""

    name = "detectron2"

    def __init__(
        self, layers: LayeredConfig, *, gpus: int, at_once: int, scale: int | None, evaluate_only: bool
    ):
        if not is_installed():
            raise UserError(
                "Detectron2 is not installed; get it with `python scripts/get_detectron2.py`, or train the "
                "same "
                "weights with --engine torchvision, whose numbers are not comparable with published ones"
            )
        self.version = str(import_detectron2())
        register_trunks()
        register_heads()
        self.layers, self.evaluate_only = layers, evaluate_only
        self.gpus, self.at_once = gpus, at_once
        self.base = build_settings(layers)
        self.scaled = scale_to(self.base, scale) if scale else {}
        there = torch.cuda.device_count()
        self.device = self.base.MODEL.DEVICE if "MODEL.DEVICE" in layers else ("cuda" if there else "cpu")
        if self.device != "cpu" and not there:
            raise UserError(f"MODEL.DEVICE is {self.device} and torch finds no GPU; append MODEL.DEVICE cpu")
        if gpus > 1 and (gpus > there or self.device == "cpu"):
            raise UserError(f"--gpus {gpus} were asked for and this machine has {there}")
        if at_once > 1 and self.device != "cpu":
            raise UserError(f"--at-once {at_once} is for the CPU; leave it out, or append MODEL.DEVICE cpu")
        if self.base.SOLVER.IMS_PER_BATCH % gpus:
            raise UserError(
                f"SOLVER.IMS_PER_BATCH {self.base.SOLVER.IMS_PER_BATCH} does not divide over {gpus} GPUs"
            )

    def arm(self, weights: str | None) -> Arm:
        """The configuration with `weights` (OUT.pkl), or with those that the layers state."""
        cfg, converted = self.base.clone(), None
        if weights is None:
            require_stated(self.layers)
            name = Path(cfg.MODEL.WEIGHTS).stem or SCRATCH
        else:
            if "MODEL.WEIGHTS" in self.layers:
                raise UserError(
                    f"--weights and MODEL.WEIGHTS by {self.layers['MODEL.WEIGHTS'].where} were both given; "
                    "keep one"
                )
            converted = read_converted(Path(weights))
            lay_weights(cfg, self.layers, converted.path)
            name = converted.path.stem
        changed = fit_to_device(cfg, self.device)
        protocol: dict[str, Any] = {"norms_changed": changed}
        if self.scaled:
            protocol |= {"scaled": self.scaled, "not_comparable": not_comparable(cfg)}
        return Arm(name, cfg, converted, converted.digest if converted else None, protocol)

    def scratch(self, like: Arm) -> Arm:
        """The same settings without weights; Detectron2 draws them from each trial's seed."""
        cfg = like.settings.clone()
        cfg.MODEL.WEIGHTS = ""
        return Arm(SCRATCH, cfg, None, None, like.protocol)

    def run(self, tasks: Sequence[Task]) -> list[dict[str, Any]]:
        """The results, in the order of the tasks."""
        return run_jobs([self.job(task) for task in tasks], self.gpus, self.at_once)

    def settings(self, arm: Arm, data: DetectionData) -> dict[str, Any]:
        """For a record: every key that is not Detectron2's default."""
        return what_differs(self._fitted(arm, data, {}))

    def job(self, task: Task) -> Job:
        """The task as Detectron2's processes take it."""
        weights = task.arm.weights
        assert not isinstance(weights, ReadBackbone)
        cfg = self._fitted(task.arm, task.data, task.keys)
        return Job(
            task.name, task.folder, cfg, task.seed, task.data, task.metric, weights, self.evaluate_only
        )

    def _fitted(self, arm: Arm, data: DetectionData, keys: Mapping[str, float]) -> Any:
        cfg = arm.settings.clone()
        cfg.merge_from_list([item for pair in keys.items() for item in pair])
        fit_to_data(cfg, data, register(data))
        return cfg


class TorchvisionEngine:
    """torchvision's Faster and Mask R-CNN with the same data, schedule and evaluation; not comparable with
    published numbers. `weights` are a checkpoint of any known format, converted or not."""

    name = "torchvision"

    def __init__(self, layers: LayeredConfig, *, evaluate_only: bool):
        import torchvision

        self.version = f"torchvision {torchvision.__version__}"
        for key, (_, where) in layers.items():
            if where == COMMAND_LINE and key not in KNOWN:
                raise UserError(f"torchvision's engine does not read {key}; leave it out")
        self.evaluate_only = evaluate_only
        self.values = {key: stated.value for key, stated in layers.items()}

    def arm(self, weights: str | None) -> Arm:
        if weights is None:
            raise UserError("--engine torchvision needs --weights: a checkpoint, OUT.pkl, or random:NAME")
        read = _with_recorded_pixels(read_backbone(weights), Path(weights))
        return Arm(Path(weights).stem.replace(":", "-"), self.values, read, read.digest, self._protocol())

    def scratch(self, like: Arm) -> Arm:
        """The same architecture, untrained; the seed of each trial draws it."""
        return Arm(SCRATCH, like.settings, like.weights, None, self._protocol())

    def run(self, tasks: Sequence[Task]) -> list[dict[str, Any]]:
        """The results, in the order of the tasks."""
        with start_runtime(self.values.get("MODEL.DEVICE", "auto")) as runtime:
            return [self._do(task, runtime) for task in tasks]

    def settings(self, arm: Arm, data: DetectionData) -> dict[str, Any]:
        """For a record: what the configuration states."""
        return {key: value for key, value in arm.settings.items() if not key.startswith("SCENES.")}

    def _protocol(self) -> dict[str, Any]:
        return {"comparable": False, "not_comparable": NOT_COMPARABLE}

    def _do(self, task: Task, runtime: Runtime) -> dict[str, Any]:
        done = read_result(task.folder)
        if done is not None and not self.evaluate_only:
            return done
        arm, read = task.arm, task.arm.weights
        assert isinstance(read, ReadBackbone)
        if arm.digest is None:  # scratch
            kind, pixels = read.architecture, read.normalisation
            drawn = f"{RANDOM}{kind.name}:width={kind.width}:stem={kind.stem}:seed={task.seed}"
            read = replace(read_backbone(drawn), normalisation=pixels)
        recipe = recipe_of({**arm.settings, **task.keys, "SEED": task.seed})
        say(f"{task.name}: {recipe.steps} steps of {recipe.batch} images, in {task.folder}")
        with RunLock(task.folder):
            outcome = train_and_evaluate(
                read, task.data, recipe, task.metric, runtime,
                run=task.folder, resume=True, evaluate_only=self.evaluate_only,
            )  # fmt: skip
        say(f"{task.name}: AP {outcome.metrics['detection/AP']:.2f}")
        found = {"metrics": outcome.metrics, "seed": task.seed}
        draw_predictions(task.folder / PICTURE, task.data.test, outcome.predictions, task.data.classes)
        write_text(task.folder / RESULT, to_json(found) + "\n")
        return found


def _with_recorded_pixels(read: ReadBackbone, path: Path) -> ReadBackbone:
    """The backbone with the normalisation that OUT.yaml says, where it comes from an OUT.pkl, which has none.

    Raises:
        UserError: OUT.yaml is missing, or of other weights.
    """
    if path.suffix != ".pkl":
        return read
    read_converted(path)
    model = yaml.safe_load(path.with_suffix(".yaml").read_text(encoding="utf-8"))["MODEL"]
    mean, std = (tuple(value / 255 for value in model[key]) for key in ("PIXEL_MEAN", "PIXEL_STD"))
    return replace(read, normalisation=Normalisation(mean, std))
