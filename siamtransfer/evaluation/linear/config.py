"""The options of the linear probe. This module imports neither torch nor NumPy."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

from siamtransfer.evaluation.config import EvaluationConfig, OneCheckpointConfig
from siamtransfer.utils.errors import UserError

ProbeOptimizer = Literal["sgd", "lars", "adamw"]
PublishedName = Literal[
    "simsiam", "simsiam-paper", "moco", "moco-v3", "swav", "barlow-twins", "vicreg", "dino"
]
"""The names in protocols.PUBLISHED."""
ProtocolName = Literal["logistic", "sweep", PublishedName]
STRENGTHS = tuple(float(f"{10 ** (x / 4):.6g}") for x in range(-24, 21))
"""45 values of C from 1e-6 to 1e5, equally spaced in their logarithm."""
LRS = tuple(float(f"{10 ** (x / 2):.3g}") for x in range(-8, 5))
"""13 learning rates from 1e-4 to 100, equally spaced in their logarithm."""


@dataclass
class LinearConfig(OneCheckpointConfig):
    """The linear probe's own options, with those of every evaluator."""

    common: ClassVar[tuple[str, ...]] = (
        *EvaluationConfig.common,
        "protocol",
        "augment",
        "epochs",
        "batch_size",
        "lr",
        "run",
        "resume",
    )
    aliases: ClassVar[dict[str, str]] = {**EvaluationConfig.aliases, "rates": "lrs", "rate": "lr"}

    protocol: ProtocolName = "logistic"
    """logistic, sweep, or the name of a published recipe; see above."""
    strengths: list[float] = field(default_factory=lambda: list(STRENGTHS))
    """logistic: values of scikit-learn's C."""
    standardise: bool = False
    """logistic: give every feature unit deviation first."""
    lrs: list[float] = field(default_factory=lambda: list(LRS))
    """sweep: learning rates for a batch of 256."""
    optimizers: list[ProbeOptimizer] = field(default_factory=lambda: ["sgd"])
    """sweep: update rules."""
    selections: list[str] | None = None
    """sweep: several choices of layers, each as in --layers."""
    augment: bool = False
    """sweep: train on crops and flips, not on kept features."""
    epochs: int | None = None
    """Passes over the images; a change is recorded."""
    batch_size: int | None = None
    """Images an update; a change is recorded."""
    lr: float | None = None
    """Published protocols: another learning rate for a batch of 256; recorded."""
    weight_decay: float | None = None
    """Another weight decay; recorded."""
    run: str | None = None
    """Folder in which the state after every epoch is kept."""
    resume: bool = False
    """Go on with the probe that --run keeps."""
    seed: int = 0
    """Decides weights, order, crops and held-out splits."""

    @property
    def published(self) -> bool:
        """Whether the protocol is one that its authors published."""
        return self.protocol in get_args(PublishedName)

    @property
    def changes(self) -> dict[str, float]:
        """What the options change of the protocol, by the names in the record."""
        options = {
            "epochs": self.epochs,
            "batch": self.batch_size,
            "rate": self.lr,
            "weight_decay": self.weight_decay,
        }
        return {name: value for name, value in options.items() if value is not None}

    def check(self) -> None:
        super().check()
        self._check_numbers()
        if self.augment and self.protocol != "sweep":
            raise UserError("--augment goes with --protocol sweep; the published protocols always augment")
        if (self.published or self.augment) and (self.train_features or self.checkpoint == "pixels"):
            raise UserError(
                f"--protocol {self.protocol} trains on augmented images through a backbone: give a "
                "checkpoint, or take --protocol logistic, or sweep without --augment"
            )
        if self.selections and (self.protocol != "sweep" or self.train_features):
            raise UserError("--selections goes with --protocol sweep on images; take --layers for the others")
        if self.resume and self.run is None:
            raise UserError("--resume needs --run, the folder in which the probe was begun")
        if self.protocol == "logistic" and (self.run or self.changes):
            raise UserError(
                "--protocol logistic has no epochs, batch, learning rate or weight decay, and needs no --run"
            )
        if self.protocol == "sweep" and self.lr:
            raise UserError("--lr is one number for a published protocol; a sweep takes several --lrs")

    def _check_numbers(self) -> None:
        if min(self.strengths, default=0) <= 0 or min(self.lrs, default=0) <= 0:
            raise UserError("--strengths and --lrs must be above 0")
        options = {
            "epochs": (self.epochs, 1),
            "batch-size": (self.batch_size, 1),
            "lr": (self.lr, 0),
            "weight-decay": (self.weight_decay, 0),
        }
        for name, (value, least) in options.items():
            if value is not None and not least <= value < math.inf:
                raise UserError(f"--{name} {value} means nothing: give a number above 0")
