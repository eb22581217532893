"""The two ways to train a detector, with one interface: Detectron2, of which published numbers are, and
torchvision.

An engine prepares an `Initialization` from weights, does `FinetuneRun`s with it, and gives the settings for
the record.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from siamtransfer.checkpoints.read_backbone import read_backbone
from siamtransfer.detection.detectron2.check_settings import check_settings
from siamtransfer.detection.detectron2.compat import import_detectron2, is_installed
from siamtransfer.detection.detectron2.launch import run_all
from siamtransfer.detection.detectron2.lr_scaling import not_comparable, scale_to
from siamtransfer.detection.detectron2.roi_heads import register_heads
from siamtransfer.detection.detectron2.segmentor import register_segmentors
from siamtransfer.detection.detectron2.settings import (
    build_settings,
    fit_to_device,
    fit_to_run,
    recorded_settings,
    require_weights_keys,
)
from siamtransfer.detection.detectron2.trunk import register_trunks
from siamtransfer.detection.detectron2.weights import read_converted
from siamtransfer.detection.detectron2.weights_config import merge_weights_config
from siamtransfer.detection.finetune_run import FinetuneRun, Initialization
from siamtransfer.detection.layered_config import COMMAND_LINE, OWN_SECTIONS, LayeredConfig
from siamtransfer.detection.tasks.registry import META_ARCHITECTURE, SEMANTIC
from siamtransfer.detection.tasks.task import Task
from siamtransfer.detection.torchvision.finetune import check_initialization, finetune
from siamtransfer.detection.torchvision.instances import NOT_COMPARABLE
from siamtransfer.detection.torchvision.recipe import KNOWN
from siamtransfer.detection.torchvision.segmenter_recipe import SEGMENTER_KEYS, Head, keys_not_read
from siamtransfer.detection.torchvision.semantic import NOT_COMPARABLE as OTHER_HEAD
from siamtransfer.distributed.rank_costs import share_costs
from siamtransfer.distributed.runtime import start_runtime
from siamtransfer.utils.errors import UserError

SCRATCH = "scratch"


class Detectron2Engine:
    """Detectron2's trainer on `gpus` GPUs, or on the CPU with `at_once` runs side by side.

    `scale`: rewrite the schedule, which is for 8 GPUs, for so many.
    """

    name = "detectron2"

    def __init__(self, layered: LayeredConfig, *, gpus: int = 1, at_once: int = 1, scale: int | None = None):
        if not is_installed():
            raise UserError(
                "Detectron2 is not installed; get it with `python scripts/get_detectron2.py`, or train the "
                "same weights with --engine torchvision, whose numbers are not comparable with published ones"
            )
        self.version = str(import_detectron2())
        register_trunks()
        register_heads()
        register_segmentors()
        self.layered, self.gpus, self.at_once = layered, gpus, at_once
        self.base = build_settings(layered)
        self.scaled = scale_to(self.base, scale) if scale else {}
        self.device = self._choose_device()
        if self.base.SOLVER.IMS_PER_BATCH % gpus:
            raise UserError(
                f"SOLVER.IMS_PER_BATCH {self.base.SOLVER.IMS_PER_BATCH} does not divide over {gpus} GPUs"
            )

    def _choose_device(self) -> str:
        """MODEL.DEVICE where it is stated, else a GPU where there is one."""
        present = torch.cuda.device_count()
        stated = "MODEL.DEVICE" in self.layered
        device = self.base.MODEL.DEVICE if stated else ("cuda" if present else "cpu")
        if device != "cpu" and not present:
            raise UserError(f"MODEL.DEVICE is {device} and torch finds no GPU; append MODEL.DEVICE cpu")
        if self.gpus > 1 and (self.gpus > present or device == "cpu"):
            raise UserError(f"--gpus {self.gpus} were asked for and this machine has {present}")
        if self.at_once > 1 and device != "cpu":
            raise UserError(
                f"--at-once {self.at_once} is for the CPU; leave it out, or append MODEL.DEVICE cpu"
            )
        return device

    def initialization(self, weights: str | None) -> Initialization:
        """The settings with `weights` (OUT.pkl), or with the MODEL.WEIGHTS that the configuration states."""
        cfg, converted = self.base.clone(), None
        if weights is None:
            require_weights_keys(self.layered)
            name = Path(cfg.MODEL.WEIGHTS).stem or SCRATCH
        else:
            if "MODEL.WEIGHTS" in self.layered:
                raise UserError(
                    f"--weights and MODEL.WEIGHTS by {self.layered['MODEL.WEIGHTS'].where} "
                    "were both given; keep one"
                )
            converted = read_converted(Path(weights))
            merge_weights_config(cfg, self.layered, converted.path)
            name = converted.path.stem
        protocol: dict[str, Any] = {"norms_changed": fit_to_device(cfg, self.device)}
        if self.scaled:
            protocol |= {"scaled": self.scaled, "not_comparable": not_comparable(cfg)}
        return Initialization(name, cfg, converted, converted.digest if converted else None, protocol)

    def from_scratch(self, like: Initialization) -> Initialization:
        """The settings of `like` without weights; Detectron2 draws them from the seed of each run."""
        cfg = like.settings.clone()
        cfg.MODEL.WEIGHTS = ""
        return Initialization(SCRATCH, cfg, None, None, like.protocol)

    def run(self, runs: Sequence[FinetuneRun]) -> list[dict[str, Any]]:
        """The results, in the order of the runs."""
        return run_all(runs, self.gpus, self.at_once)

    def check(self, initialization: Initialization, task: Task) -> None:
        """Raises UserError for settings of which Detectron2 could build no network or no schedule."""
        check_settings(fit_to_run(initialization.settings, task, {}))

    def settings(self, initialization: Initialization, task: Task) -> dict[str, Any]:
        """For a record: every key that is not Detectron2's default."""
        return recorded_settings(fit_to_run(initialization.settings, task, {}))


class TorchvisionEngine:
    """torchvision's R-CNNs and segmentation heads with the same data, schedule and evaluation.

    Its numbers are not comparable with published ones. It takes a checkpoint of any known format, converted
    or not. `head` is that of a semantic segmentation.
    """

    name = "torchvision"

    def __init__(self, layered: LayeredConfig, head: Head = "fcn"):
        import torchvision

        self.version, self.head = f"torchvision {torchvision.__version__}", head
        self.values = {key: stated.value for key, stated in layered.items()}
        self.device = str(self.values.get("MODEL.DEVICE", "auto"))
        if self.device.startswith("cuda") and not torch.cuda.is_available():
            raise UserError(f"MODEL.DEVICE is {self.device} and torch finds no GPU; append MODEL.DEVICE cpu")
        self.semantic = self.values.get(META_ARCHITECTURE) in SEMANTIC
        known = SEGMENTER_KEYS if self.semantic else KNOWN
        for key, (_, where) in layered.items():
            if where == COMMAND_LINE and key not in known:
                raise UserError(f"torchvision's engine does not read {key}; leave it out")

    def initialization(self, weights: str | None) -> Initialization:
        """The settings with `weights`: a checkpoint, OUT.pkl, or a baseline such as random:resnet50."""
        if weights is None:
            raise UserError("--engine torchvision needs --weights: a checkpoint, OUT.pkl, or random:NAME")
        if Path(weights).suffix == ".pkl":
            read_converted(Path(weights))  # refuses OUT.pkl without its OUT.yaml, which says how it is read
        read = read_backbone(weights)
        name = Path(weights).stem.replace(":", "-")
        return Initialization(name, self.values, read, read.digest, self._protocol())

    def from_scratch(self, like: Initialization) -> Initialization:
        """The architecture of `like`, untrained; the seed of each run draws it."""
        return Initialization(SCRATCH, like.settings, like.weights, None, self._protocol())

    def run(self, runs: Sequence[FinetuneRun]) -> list[dict[str, Any]]:
        """The results, in the order of the runs."""
        with start_runtime(self.device) as runtime:
            results = [finetune(run, runtime, self.head) for run in runs]
            share_costs()
        return results

    def check(self, initialization: Initialization, task: Task) -> None:
        """Raises UserError for settings, weights, data and a device that do not go together."""
        with start_runtime(self.device) as runtime:
            check_initialization(initialization, task, self.head, runtime)

    def settings(self, initialization: Initialization, task: Task) -> dict[str, Any]:
        """For a record: every key that the configuration states, and the head of a segmentation."""
        stated = initialization.settings.items()
        keys = {key: value for key, value in stated if not key.startswith(OWN_SECTIONS)}
        return keys | ({"head": self.head} if self.semantic else {})

    def _protocol(self) -> dict[str, Any]:
        if not self.semantic:
            return {"comparable": False, "not_comparable": NOT_COMPARABLE}
        ignored = keys_not_read(self.values)
        not_read = f"; not read: {', '.join(ignored)}" if ignored else ""
        return {"comparable": False, "not_comparable": f"{OTHER_HEAD}{not_read}"}


DetectionEngine = Detectron2Engine | TorchvisionEngine
