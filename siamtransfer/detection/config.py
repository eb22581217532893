"""The options of the detection program. This module imports neither torch nor NumPy."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from siamtransfer.checkpoints.options import NAMED, require_checkpoint
from siamtransfer.trackers.targets import parse_targets
from siamtransfer.utils.checks import above, at_least, within
from siamtransfer.utils.errors import UserError


@dataclass
class DetectionOptions:
    """What is fine-tuned from which weights on which data, and how often."""

    positional: ClassVar[tuple[str, ...]] = ("settings",)
    common: ClassVar[tuple[str, ...]] = (
        "config",
        "weights",
        "compare",
        "trials",
        "train",
        "test",
        "root",
        "gpus",
        "run",
        "resume",
        "engine",
    )
    aliases: ClassVar[dict[str, str]] = {"rates": "lrs", "decays": "weight_decays"}

    config: list[str] = field(default_factory=list, metadata={"append": True})
    """A configuration of Detectron2's kind, a file or a shipped one by name; several are layered, the last
    one wins."""
    weights: str | None = None
    """OUT.pkl of siamtransfer to-d2, OUT.yaml beside it; with torchvision any checkpoint, or random:NAME."""
    compare: str | None = None
    """OTHER.pkl to fine-tune too, with the same seeds, for the paired difference; or scratch."""
    engine: Literal["detectron2", "torchvision"] = "detectron2"
    """What trains. torchvision's numbers are not comparable with published ones."""
    head: Literal["fcn", "deeplab"] = "fcn"
    """Head of a semantic segmentation with --engine torchvision: FCN, or DeepLab v3."""
    train: str | None = None
    """Training data, instead of DATASETS.TRAIN; several splits joined by +."""
    test: str | None = None
    """Test data, instead of DATASETS.TEST."""
    root: str | None = None
    """Folder of VOC2007, VOC2012 and coco; null: DETECTRON2_DATASETS, or ./datasets."""
    metric: Literal["voc", "voc-all-points", "coco"] | None = None
    """How average precision is computed; null: as the test data's format has it."""
    run: str | None = None
    """Folder of the run; null: one below runs/detection."""
    resume: bool = False
    """Continue the run in that folder; more --trials may be asked for."""
    eval_only: bool = False
    """Score the trained models of the run again."""
    trials: int = 1
    """Trainings, with seeds from --seed on."""
    seed: int = 0
    """Seed of the first trial."""
    gpus: int = 1
    """GPUs of this machine to train on."""
    at_once: int = 1
    """Trainings side by side, on the CPU."""
    scale_to: int | None = None
    """Rewrite the schedule, which is for 8 GPUs, for so many."""
    search: bool = False
    """Choose learning rate and weight decay on a held-out part of train."""
    lrs: list[float] = field(default_factory=list)
    """Search: learning rates (SOLVER.BASE_LR); none: 0.01, 0.02, 0.04 and 0.08, with AdamW the
    configuration's rate times 0.5, 1, 2 and 4."""
    weight_decays: list[float] = field(default_factory=lambda: [1e-4])
    """Search: weight decays (SOLVER.WEIGHT_DECAY)."""
    held_out: float = 0.1
    """Search: fraction of the training images that are held out to score on."""
    track: list[str] = field(default_factory=list, metadata={"append": True})
    """Send the record to a tracker, too: tensorboard:FOLDER, wandb[:PROJECT] or mlflow[:URI]; may be
    repeated."""
    settings: list[str] = field(default_factory=list, metadata={"append": True})
    """KEY VALUE pairs of Detectron2's configuration, such as SOLVER.BASE_LR 0.04."""

    def check(self) -> None:
        """Raises UserError for what is missing or means nothing."""
        if not self.config:
            raise UserError(
                "give a configuration by --config; siamtransfer configs detection lists the shipped ones"
            )
        parse_targets(self.track)
        at_least("--trials", self.trials, 1)
        at_least("--seed", self.seed, 0)
        at_least("--gpus", self.gpus, 1)
        at_least("--at-once", self.at_once, 1)
        at_least("--scale-to", self.scale_to, 1)
        within("--held-out", self.held_out, 0, 0.9)
        for lr in self.lrs:
            above("--lrs", lr, 0)
        for weight_decay in self.weight_decays:
            at_least("--weight-decays", weight_decay, 0)
        for name in (self.weights, self.compare):
            if name in (None, "scratch"):
                continue
            if self.engine == "torchvision":
                require_checkpoint(str(name))
            elif not str(name).startswith(NAMED) and not Path(str(name)).is_file():
                raise UserError(f"there is no file {name}: siamtransfer to-d2 CKPT OUT.pkl writes one")
