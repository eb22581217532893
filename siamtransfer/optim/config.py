"""How long and how fast to train: the options of the optimizer and of its schedule. Light: no torch here."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from siamtransfer.utils.checks import above, at_least, changed, within
from siamtransfer.utils.errors import UserError

ScheduleName = Literal["cosine-epoch", "cosine-step", "cosine-unigrad", "milestones", "plateau", "constant"]


@dataclass
class OptimConfig:
    """How long and how fast to train."""

    epochs: int = 100
    """Passes over the images; the schedule is laid out over them."""
    batch_size: int = 512
    """Images per update, over all ranks and gradient-accumulation steps together."""
    lr: float = 0.05
    """Base learning rate: the initial one is lr x batch_size / 256, unless lr_scaling says otherwise."""
    momentum: float = 0.9
    """SGD's momentum; also that of lars and larc."""
    weight_decay: float = 1e-4
    """On every trainable parameter, batch norm and biases included, as SimSiam does; see decay_vectors."""
    name: Literal["sgd", "adamw", "radam", "lars", "larc"] = "sgd"
    """The update rule. lars is that of Barlow Twins, VICReg, MoCo v3 and DINO, larc that of SwAV. radam is
    rectified Adam (Liu et al., arXiv 1908.03265) with adamw's weight decay; with lookahead 6 it is Ranger."""
    lookahead: int | None = None
    """Steps k between two moves of slow weights, φ ← φ + α (θ - φ), from which training goes on (Zhang et
    al., arXiv 1907.08610; 5 or 6 there and in Ranger). null: no slow weights."""
    lookahead_share: float = 0.5
    """Share α of the way that slow weights go."""
    schedule: ScheduleName = "cosine-epoch"
    """cosine-epoch changes the learning rate once an epoch (SimSiam's and MoCo's code), cosine-step every
    step; cosine-unigrad lays the cosine out over all steps, those of the warm-up too, so it stops a little
    early (UniGrad's code); milestones takes a tenth from each of `milestones` on (MoCo v1); plateau lowers
    the rate when the loss no longer falls. With hardware.guard device, plateau waits for every step."""
    plateau_factor: float = 0.1
    """What plateau multiplies the learning rate by."""
    plateau_patience: int = 5
    """Epochs in a row without a lower mean loss after which plateau does so."""
    plateau_margin: float = 0.001
    """How much lower the mean loss of an epoch must be to count as lower, in units of the loss."""
    warmup_epochs: int = 0
    """Epochs of linear warm-up before the decay (SimSiam's paper: 10 for batches of 1024 or more)."""
    grad_accum_steps: int = 1
    """Forward and backward passes per update, each with an equal part of a rank's images, to save memory.
    Batch-norm statistics, negatives and correlations are those of one pass, so the result is not that of one
    pass with all images."""
    lr_scaling: Literal["linear", "root", "none"] = "linear"
    """The initial learning rate: lr x batch_size / 256 (linear), lr x the square root of batch_size (root, an
    option of SimCLR), or lr itself (none, as SwAV and DirectPred give theirs)."""
    vector_lr: float | None = None
    """Base learning rate of biases and batch norm's parameters (Barlow Twins: 0.00015 beside 0.2, which
    is what its code's 0.0048 comes to on its 32 processes); null: lr."""
    end_fraction: float = 0.0
    """Fraction of the initial learning rate that a cosine ends at (0.001 in Barlow Twins, VICReg, SwAV and
    UniGrad)."""
    warmup_start: float = 0.0
    """Fraction of the initial learning rate that the warm-up starts from (SwAV: 0.0625; UniGrad: 0.001)."""
    warmup_reaches_peak: bool = False
    """Let the warm-up's last step have the initial learning rate, which the next step repeats (SwAV,
    DINO)."""
    milestones: list[int] = field(default_factory=list)
    """Epochs from which the schedule `milestones` takes a tenth (MoCo v1: 120 and 160 of 200)."""
    decay_vectors: bool | None = None
    """Whether weight decay, and the trust ratio of lars and larc, also reach parameters of one dimension,
    which are biases and batch norm's; null: not with lars, as all of its users have it, else yes."""
    end_weight_decay: float | None = None
    """Weight decay at the end, on a cosine from weight_decay (DINO: from 0.04 to 0.4); null: constant."""
    trust: float = 0.001
    """Trust coefficient of lars and larc: how far a tensor moves at learning rate 1, in units of its own
    length."""
    clip_trust: bool = False
    """Keep lars and larc from moving any tensor faster than plain SGD would (solo-learn for CIFAR-10, with
    trust 0.02)."""

    def check(self, world_size: int, images: int) -> None:
        """Raises UserError when the numbers cannot go together, naming the key and the cure."""
        if min(self.epochs, self.batch_size, self.grad_accum_steps) < 1:
            raise UserError("optim.epochs, optim.batch_size and optim.grad_accum_steps must be at least 1")
        for key in ("lr", "momentum", "weight_decay", "vector_lr", "end_weight_decay"):
            at_least(f"optim.{key}", getattr(self, key), 0)
        for key in ("end_fraction", "warmup_start"):
            within(f"optim.{key}", getattr(self, key), 0, 1)
        above("optim.trust", self.trust, 0)
        passes = world_size * self.grad_accum_steps
        if self.batch_size % passes:
            raise UserError(
                f"optim.batch_size {self.batch_size} does not divide into {world_size} ranks x "
                f"{self.grad_accum_steps} optim.grad_accum_steps: choose a multiple of {passes}"
            )
        if self.batch_size // passes < 2:
            raise UserError(
                f"optim.batch_size {self.batch_size} leaves fewer than 2 images for batch norm on each of "
                f"{world_size} ranks x {self.grad_accum_steps} passes: raise it to {2 * passes} or more"
            )
        if images < self.batch_size:
            raise UserError(
                f"the set has {images} images and optim.batch_size is {self.batch_size}: lower it with "
                f"--optim.batch-size {max(2, 2 ** int(math.log2(max(images, 2))))} or add images"
            )
        self._check_lookahead_and_plateau()
        if not 0 <= self.warmup_epochs < self.epochs:
            raise UserError(
                f"optim.warmup_epochs {self.warmup_epochs} must be at least 0 and less than optim.epochs "
                f"{self.epochs}"
            )
        if bool(self.milestones) != (self.schedule == "milestones"):
            raise UserError(
                "optim.milestones and the schedule of that name need each other: give both or none"
            )

    def _check_lookahead_and_plateau(self) -> None:
        """Refuses numbers of either that cannot be, or that nothing uses."""
        at_least("optim.lookahead", self.lookahead, 1)
        above("optim.lookahead_share", self.lookahead_share, 0)
        within("optim.lookahead_share", self.lookahead_share, 0, 1)
        above("optim.plateau_factor", self.plateau_factor, 0)
        within("optim.plateau_factor", self.plateau_factor, 0, 1)
        if self.plateau_factor == 1:
            raise UserError("optim.plateau_factor is 1, but must be below 1 to lower the rate")
        at_least("optim.plateau_patience", self.plateau_patience, 1)
        at_least("optim.plateau_margin", self.plateau_margin, 0)
        if changed(self, "lookahead_share") and self.lookahead is None:
            raise UserError(
                "optim.lookahead_share changes nothing without slow weights: set optim.lookahead, as to 6, "
                "or leave lookahead_share out"
            )
        for key in changed(self, "plateau_factor", "plateau_patience", "plateau_margin"):
            if self.schedule != "plateau":
                raise UserError(
                    f"optim.{key} belongs to optim.schedule plateau, and that is {self.schedule}: set that, "
                    f"or leave {key} out"
                )

    @property
    def initial_lr(self) -> float:
        """The learning rate before any decay; lr x global batch size / 256 (Goyal et al. 2017) as a rule."""
        return self._scaled(self.lr)

    @property
    def initial_vector_lr(self) -> float:
        """The same for biases and batch norm's parameters."""
        return self._scaled(self.lr if self.vector_lr is None else self.vector_lr)

    @property
    def spares_vectors(self) -> bool:
        """Whether parameters of one dimension are left out of weight decay and of the trust ratio."""
        return self.name == "lars" if self.decay_vectors is None else not self.decay_vectors

    def _scaled(self, lr: float) -> float:
        factors = {"linear": self.batch_size / 256, "root": math.sqrt(self.batch_size), "none": 1}
        return lr * factors[self.lr_scaling]
