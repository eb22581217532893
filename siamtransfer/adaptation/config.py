"""The options of an adaptation: a pretraining that starts from weights. Light: no torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from siamtransfer.utils.checks import above, at_least
from siamtransfer.utils.errors import UserError

NEED_WEIGHTS = ("warmup_epochs", "layer_decay", "trunk_lr", "lora_rank", "retention")
"""Options that mean nothing without a network to start from."""


@dataclass
class AdaptConfig:
    """How a network with weights is adapted to new images (docs/ADAPTING.md)."""

    warmup_epochs: float = 0.0
    """Epochs at the start in which the heads alone learn: the backbone and its momentum encoder keep every
    tensor, and their batch norms and stochastic depth work as in evaluation. 0.5 is half an epoch."""
    layer_decay: float = 1.0
    """Layer l of the backbone's L has layer_decay^(L - l) times the learning rate, and heads have the whole
    (BEiT, MAE: 0.65 to 0.75 in fine-tuning); 1: all the same."""
    trunk_lr: float = 1.0
    """Factor of the learning rate of the whole backbone, beside layer_decay."""
    lora_rank: int = 0
    """Rank of the low-rank corrections that the backbone learns in place of its weights (LoRA; extra: lora);
    0: the weights themselves learn."""
    lora_alpha: int = 16
    """A correction is lora_alpha / lora_rank times the product of its two matrices."""
    lora_targets: list[str] = field(default_factory=lambda: ["qkv", "proj"])
    """Last names of the layers within blocks that are corrected: qkv and proj are a ViT's attention, fc1 and
    fc2 the MLPs of a ViT or a ConvNeXt."""
    retention: str | None = None
    """Labelled images on which nothing shall be forgotten: a folder with one folder a class, or a set by
    name. Every monitor.knn_every epochs the backbone is scored on them by kNN."""
    retention_root: str | None = None
    """Folder of the images where retention is a set by name that needs one."""
    cka_images: int = 1000
    """How many of these images the features are compared on with those of the start (linear CKA), the first
    of a fixed shuffle; 0: none."""
    max_drop: float | None = None
    """Points of kNN accuracy on the retention set that may be lost; beyond them it is forgetting."""
    on_forgetting: Literal["alarm", "stop", "keep-best"] = "alarm"
    """alarm: say so and go on. stop: end the run with an error. In both good.pth is the latest state within
    max_drop. keep-best: go on, and good.pth is the one with the best kNN on the new images among those within
    max_drop."""

    def check(self, weights: str | None, epochs: int, knn_every: int) -> None:
        """Raises UserError for numbers that mean nothing, alone or in a run from the checkpoint `weights`
        over `epochs` epochs with a kNN check every `knn_every`."""
        at_least("adapt.warmup_epochs", self.warmup_epochs, 0)
        if not 0 < self.layer_decay <= 1:
            raise UserError(
                f"adapt.layer_decay is {self.layer_decay}, but must be above 0 and at most 1: it slows down "
                "the layers near the image"
            )
        above("adapt.trunk_lr", self.trunk_lr, 0)
        at_least("adapt.lora_rank", self.lora_rank, 0)
        above("adapt.lora_alpha", self.lora_alpha, 0)
        if self.cka_images < 2 and self.cka_images:
            raise UserError(
                f"adapt.cka_images is {self.cka_images}, but must be 0 or at least 2: features of one image "
                "cannot be compared"
            )
        above("adapt.max_drop", self.max_drop, 0)
        self._require_weights(weights)
        if self.warmup_epochs >= epochs:
            raise UserError(
                f"adapt.warmup_epochs is {self.warmup_epochs:g}, and optim.epochs {epochs}: the backbone "
                "would never learn; give fewer epochs of warm-up or more in all"
            )
        if self.lora_rank and not self.lora_targets:
            raise UserError(
                "adapt.lora_targets names no layer: give the last names of some, such as qkv,proj"
            )
        self._check_guard(knn_every)

    def _require_weights(self, weights: str | None) -> None:
        usual = AdaptConfig()
        for key in NEED_WEIGHTS:
            if weights is None and getattr(self, key) != getattr(usual, key):
                raise UserError(
                    f"adapt.{key} is for a network that starts from weights, and backbone.weights is not "
                    f"given: give a checkpoint by --backbone.weights, or leave adapt.{key} out"
                )

    def _check_guard(self, knn_every: int) -> None:
        if self.retention is None:
            for key in ("max_drop", "retention_root"):
                if getattr(self, key) is not None:
                    raise UserError(
                        f"adapt.{key} belongs to a set that must not be forgotten: name one by "
                        "--adapt.retention FOLDER"
                    )
        elif not knn_every:
            raise UserError(
                "adapt.retention is scored every monitor.knn_every epochs, and that is 0: set it to 1 or more"
            )
        if self.on_forgetting != "alarm" and self.max_drop is None:
            raise UserError(
                f"adapt.on_forgetting {self.on_forgetting} needs to know what forgetting is: give the points "
                "that may be lost by --adapt.max-drop"
            )
