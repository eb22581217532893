"""How long and how fast to train: the options of the optimizer and of its schedule. Light: no torch here."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from siamtransfer.utils.checks import above, at_least, within
from siamtransfer.utils.errors import UserError

Schedule = Literal["cosine-epoch", "cosine-step", "cosine-unigrad", "milestones", "constant"]


@dataclass
class OptimConfig:
    """How long and how fast to train."""

    epochs: int = 100
    """Passes over the images; the schedule is laid out over them."""
    batch: int = 512
    """Images per update, over all ranks and accumulated parts together."""
    lr: float = 0.05
    """Base learning rate: the initial rate is lr x batch / 256, unless lr_scaling says otherwise."""
    momentum: float = 0.9
    """SGD's momentum; also that of lars and larc."""
    weight_decay: float = 1e-4
    """On every trainable parameter, batch norm and biases included, as SimSiam does; see decay_vectors."""
    name: Literal["sgd", "adamw", "lars", "larc"] = "sgd"
    """The update rule. lars is that of Barlow Twins, VICReg, MoCo v3 and DINO, larc that of SwAV."""
    schedule: Schedule = "cosine-epoch"
    """Cosine to the end rate in one stair per epoch (SimSiam's and MoCo's code) or smoothly; the latter laid
    out over all steps, those of the warm-up too, so that it stops a little early (UniGrad's code); a tenth of
    the rate from each of `milestones` on (MoCo v1); or no decay."""
    warmup_epochs: int = 0
    """Epochs of linear warm-up before the decay (SimSiam's paper: 10 for batches of 1024 or more)."""
    accumulate: int = 1
    """Parts that a rank splits its share of the batch into to save memory; batch-norm statistics are then
    those of one part, so the result is not that of the whole batch at once."""
    lr_scaling: Literal["linear", "root", "none"] = "linear"
    """The initial rate: lr x batch / 256 (linear), lr x the batch's square root (root, an option of SimCLR),
    or lr itself (none, as SwAV and DirectPred give theirs)."""
    vector_lr: float | None = None
    """Base learning rate of biases and batch norm's parameters (Barlow Twins: 0.0048 beside 0.2); null:
    lr."""
    end_share: float = 0.0
    """Share of the initial rate that a cosine ends at (0.001 in Barlow Twins, VICReg, SwAV and UniGrad)."""
    warmup_start: float = 0.0
    """Share of the initial rate that the warm-up starts from (SwAV: 0.0625; UniGrad: 0.001)."""
    warmup_reaches_peak: bool = False
    """Let the warm-up's last step have the initial rate already, which the next one repeats (SwAV, DINO)."""
    milestones: list[int] = field(default_factory=list)
    """Epochs from which the schedule `milestones` takes a tenth (MoCo v1: 120 and 160 of 200)."""
    decay_vectors: bool | None = None
    """Whether weight decay, and the trust ratio of lars and larc, also reach parameters of one dimension,
    which are biases and batch norm's; null: not with lars, as all of its users have it, else yes."""
    end_weight_decay: float | None = None
    """Weight decay at the end, on a cosine from weight_decay (DINO: from 0.04 to 0.4); null: constant."""
    trust: float = 0.001
    """Trust coefficient of lars and larc: how far a tensor moves at rate 1, in units of its own length."""
    clip_trust: bool = False
    """Keep lars and larc from moving any tensor faster than plain SGD would (solo-learn for CIFAR-10, with
    trust 0.02)."""

    def check(self, world_size: int, images: int) -> None:
        """Raises UserError when the numbers cannot go together, naming the key and the cure."""
        if min(self.epochs, self.batch, self.accumulate) < 1:
            raise UserError("optim.epochs, optim.batch and optim.accumulate must be at least 1")
        for key in ("lr", "momentum", "weight_decay", "vector_lr", "end_weight_decay"):
            at_least(f"optim.{key}", getattr(self, key), 0)
        for key in ("end_share", "warmup_start"):
            within(f"optim.{key}", getattr(self, key), 0, 1)
        above("optim.trust", self.trust, 0)
        if self.batch % (world_size * self.accumulate):
            raise UserError(
                f"optim.batch {self.batch} does not divide into {world_size} ranks x {self.accumulate} parts "
                f"(optim.accumulate): choose a multiple of {world_size * self.accumulate}"
            )
        if self.batch // (world_size * self.accumulate) < 2:
            raise UserError(
                f"optim.batch {self.batch} leaves fewer than 2 images for batch norm on each of {world_size} "
                f"ranks x {self.accumulate} parts: raise it to {2 * world_size * self.accumulate} or more"
            )
        if images < self.batch:
            raise UserError(
                f"the set has {images} images and optim.batch is {self.batch}: lower it with "
                f"--optim.batch {max(2, 2 ** int(math.log2(max(images, 2))))} or add images"
            )
        if not 0 <= self.warmup_epochs < self.epochs:
            raise UserError(
                f"optim.warmup_epochs {self.warmup_epochs} must be at least 0 and less than optim.epochs "
                f"{self.epochs}"
            )
        if bool(self.milestones) != (self.schedule == "milestones"):
            raise UserError(
                "optim.milestones and the schedule of that name need each other: give both or none"
            )

    @property
    def initial_rate(self) -> float:
        """The rate before any decay; lr x global batch / 256 (Goyal et al. 2017) as a rule."""
        return self._scaled(self.lr)

    @property
    def initial_vector_rate(self) -> float:
        """The same for biases and batch norm's parameters."""
        return self._scaled(self.lr if self.vector_lr is None else self.vector_lr)

    @property
    def spares_vectors(self) -> bool:
        """Whether parameters of one dimension are left out of weight decay and of the trust ratio."""
        return self.name == "lars" if self.decay_vectors is None else not self.decay_vectors

    def _scaled(self, rate: float) -> float:
        return rate * {"linear": self.batch / 256, "root": math.sqrt(self.batch), "none": 1}[self.lr_scaling]
