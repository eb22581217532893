"""The schedule of a training in torchvision and the design of a detector, from the files for Detectron2.

The files' schedule, batch, sizes and data hold here as well. Keys that describe Detectron2's model beyond
that are ignored: a C4 model becomes a feature pyramid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from siamtransfer.detection.build_pyramid import PyramidOptions
from siamtransfer.detection.data.configured import SCENES
from siamtransfer.detection.parameter_groups import GroupSettings, check_optimizer
from siamtransfer.detection.torchvision.model import Design
from siamtransfer.detection.vit_pyramid import VitOptions
from siamtransfer.detection.vit_settings import VIT_FIELDS
from siamtransfer.optim.schedules import milestones, warm_up
from siamtransfer.utils.errors import UserError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_T = TypeVar("_T", bound="DataclassInstance")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """SGD with linear warm-up; from each step of `drops` on a tenth of the learning rate before. The defaults
    are COCO's 1x.

    Attributes:
        optimizer: `SGD`, which takes `momentum`, or `AdamW`, which takes `betas`.
        layer_decay: factor of the rate from a layer of the trunk to the one before it.
        no_decay: names of parameters without weight decay.
        precise_batches: over which the norms' statistics are measured before each evaluation; 0: not.
        score_every: steps between evaluations; 0: only at the end.
        save_every: steps between checkpoints.
        log_every: steps between rows of losses.
    """

    steps: int = 90_000
    batch: int = 16
    lr: float = 0.02
    drops: tuple[int, ...] = (60_000, 80_000)
    warm_up: int = 1000
    warm_up_from: float = 0.001
    momentum: float = 0.9
    weight_decay: float = 1e-4
    norm_weight_decay: float = 0.0
    optimizer: str = "SGD"
    betas: tuple[float, ...] = (0.9, 0.999)
    layer_decay: float = 1.0
    no_decay: tuple[str, ...] = ()
    precise_batches: int = 200
    score_every: int = 0
    save_every: int = 5000
    log_every: int = 20
    seed: int = 0

    def lr_at(self, step: int) -> float:
        """The learning rate of `step`, counted from 0."""
        warming_up = step < self.warm_up
        factor = warm_up(self.warm_up_from, step, self.warm_up, reaches_peak=False) if warming_up else 1
        return self.lr * factor * milestones(step, self.drops)

    def groups(self) -> GroupSettings:
        """How parameters learn."""
        return GroupSettings(
            lr=self.lr,
            weight_decay=self.weight_decay,
            norm_weight_decay=self.norm_weight_decay,
            no_decay=self.no_decay,
            layer_decay=self.layer_decay,
        )

    def as_record(self) -> dict[str, Any]:
        """All settings, as records hold them."""
        return {self.record_name(name): value for name, value in asdict(self).items()}

    @staticmethod
    def record_name(name: str) -> str:
        """The name of a field in records and saved states, which older versions wrote too."""
        return "rate" if name == "lr" else name

    def check(self, images: int, world_size: int, kind: str = "images") -> None:
        """Raises UserError for what cannot be trained on so many images of a kind by so many processes."""
        if min(self.steps, self.batch, self.save_every) < 1 or not self.lr > 0 or self.seed < 0:
            raise UserError(
                "SOLVER.MAX_ITER, IMS_PER_BATCH, BASE_LR and CHECKPOINT_PERIOD must be above 0, and "
                "SEED at least 0"
            )
        if min(self.momentum, self.weight_decay, self.norm_weight_decay) < 0:
            raise UserError("SOLVER.MOMENTUM, WEIGHT_DECAY and WEIGHT_DECAY_NORM must be at least 0")
        check_optimizer(self.optimizer, self.betas)
        self.groups().check()
        if self.batch % world_size:
            raise UserError(
                f"SOLVER.IMS_PER_BATCH {self.batch} does not divide over {world_size} processes; "
                "change either"
            )
        if images < self.batch:
            raise UserError(
                f"the train part has {images} {kind}, less than SOLVER.IMS_PER_BATCH "
                f"{self.batch}; lower it or give more images"
            )


@dataclass(frozen=True)
class DetectorRecipe(Recipe):
    """The schedule of a detector and its `design`.

    filter_empty: whether images without an object to learn from are left out; else they are negatives.
    """

    design: Design = field(default_factory=Design)
    filter_empty: bool = True

    def as_record(self) -> dict[str, Any]:
        """All settings but those of the trunk, which only networks of timm have."""
        record = super().as_record()
        del record["design"]["trunk"]
        return record


SCHEDULE = {
    "SOLVER.MAX_ITER": "steps",
    "SOLVER.IMS_PER_BATCH": "batch",
    "SOLVER.BASE_LR": "lr",
    "SOLVER.STEPS": "drops",
    "SOLVER.WARMUP_ITERS": "warm_up",
    "SOLVER.WARMUP_FACTOR": "warm_up_from",
    "SOLVER.MOMENTUM": "momentum",
    "SOLVER.WEIGHT_DECAY": "weight_decay",
    "SOLVER.WEIGHT_DECAY_NORM": "norm_weight_decay",
    "SOLVER.OPTIMIZER": "optimizer",
    "SOLVER.BETAS": "betas",
    "SOLVER.LAYER_DECAY": "layer_decay",
    "SOLVER.NO_DECAY": "no_decay",
    "SOLVER.CHECKPOINT_PERIOD": "save_every",
    "TEST.EVAL_PERIOD": "score_every",
    "TEST.PRECISE_BN.NUM_ITER": "precise_batches",
    "SEED": "seed",
}
"""Keys of a configuration to fields of a `Recipe`."""
DATA = ("DATASETS.TRAIN", "DATASETS.TEST", *(f"SCENES.{key}" for key in SCENES))
PRECISE = "TEST.PRECISE_BN.ENABLED"
_DESIGN = {
    "MODEL.MASK_ON": "masks",
    "MODEL.FPN.OUT_CHANNELS": "channels",
    "MODEL.ROI_BOX_HEAD.FC_DIM": "hidden",
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": "sampled",
    "INPUT.MIN_SIZE_TRAIN": "short_sides",
    "INPUT.MIN_SIZE_TEST": "short_side",
    "INPUT.MAX_SIZE_TRAIN": "long_side",
}
_IMAGES = {"DATALOADER.FILTER_EMPTY_ANNOTATIONS": "filter_empty"}
_DROP_PATH = "MODEL.TIMM.DROP_PATH"
_LEVEL_NORM = "MODEL.FPN.NORM"
_ANCHORS = "MODEL.ANCHOR_GENERATOR.SIZES"
_PROPOSALS = ("MODEL.RPN.POST_NMS_TOPK_TRAIN", "MODEL.RPN.POST_NMS_TOPK_TEST")
# Settings that this engine cannot change; a file with another value is refused.
_FIXED = {
    "MODEL.RESNETS.RES4_DILATION": 1,
    "MODEL.RESNETS.RES5_DILATION": 1,
    "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "SOLVER.GAMMA": 0.1,
    "SOLVER.LR_SCHEDULER_NAME": "WarmupMultiStepLR",
    "SOLVER.WARMUP_METHOD": "linear",
    "INPUT.RANDOM_FLIP": "horizontal",
    "INPUT.LARGE_JITTER.SIZE": 0,
}
KNOWN = (
    *_DESIGN,
    *_IMAGES,
    *SCHEDULE,
    *VIT_FIELDS,
    _DROP_PATH,
    _ANCHORS,
    PRECISE,
    *_PROPOSALS,
    *DATA,
    *_FIXED,
    "MODEL.DEVICE",
)


def recipe_of(settings: Mapping[str, Any]) -> DetectorRecipe:
    """The recipe of flat settings; an absent key takes Detectron2's value for a feature pyramid.

    Raises:
        UserError: a setting is not supported here (RetinaNet, frozen stages …), or a value has another type.
    """
    refuse_others(settings, _FIXED)
    design = replaced(Design(), settings, _DESIGN)
    sizes = settings.get(_ANCHORS, ())
    if len(sizes) > 1:  # C4 has one level with all sizes on it
        if any(len(level) != 1 for level in sizes):
            raise UserError(f"{_ANCHORS} needs one size a level here, not {sizes}")
        design = replace(design, anchors=tuple(level[0] for level in sizes))
    design = replace(
        design,
        proposals=tuple(
            settings.get(key, default) for key, default in zip(_PROPOSALS, design.proposals, strict=True)
        ),
    )
    design = replace(design, trunk=_trunk_of(settings, design.channels))
    recipe = replaced(DetectorRecipe(design), settings, SCHEDULE | _IMAGES)
    return recipe if settings.get(PRECISE, True) else replace(recipe, precise_batches=0)


def _trunk_of(settings: Mapping[str, Any], channels: int) -> PyramidOptions:
    """What the settings choose about a network of timm.

    The norm of a ViT's levels is a layer norm where nothing is stated. Batch norms of several processes are
    synchronised as those of other trunks are.
    """
    trunk = replaced(PyramidOptions(), settings, {_DROP_PATH: "drop_path"})
    norm = settings.get(_LEVEL_NORM, "LN")
    vit = VitOptions(
        drop_path=trunk.drop_path, channels=channels, norm="BN" if norm in ("SyncBN", "nnSyncBN") else norm
    )
    vit = replaced(vit, settings, VIT_FIELDS)
    vit.check()
    return replace(trunk, vit=vit)


def refuse_others(settings: Mapping[str, Any], fixed: Mapping[str, Any]) -> None:
    """Raises UserError where the settings state another value of a key that is `fixed` in this engine."""
    for key, value in fixed.items():
        if settings.get(key, value) != value:
            raise UserError(
                f"{key} is {settings[key]!r}, and torchvision's engine has {value!r} only; take a "
                "configuration with that, or Detectron2's engine"
            )


def replaced(default: _T, settings: Mapping[str, Any], keys: Mapping[str, str]) -> _T:
    """`default` with the values of its fields that the settings state, each of the default's type."""
    values = {}
    for key, name in keys.items():
        if key not in settings:
            continue
        value, kind = settings[key], type(getattr(default, name))
        if kind is tuple and isinstance(value, int | list | tuple):
            value = (value,) if isinstance(value, int) else tuple(value)
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise UserError(f"{key} is {value!r}, and it has to be a {kind.__name__}; mend it")
        values[name] = value
    return replace(default, **values)
