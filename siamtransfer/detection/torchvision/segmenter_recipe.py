"""The recipe of a semantic segmentation in torchvision, read from the same files as Detectron2's.

Schedule, crops, scales, dilations, norms and sizes of test images are the file's. The heads are
torchvision's, so the keys of Detectron2's head that shape it are not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from siamtransfer.detection.dilations import output_stride
from siamtransfer.detection.torchvision.recipe import (
    DATA,
    PRECISE,
    SCHEDULE,
    Recipe,
    refuse_others,
    replaced,
)
from siamtransfer.optim.schedules import milestones
from siamtransfer.segmentation.random_crop import CropRecipe
from siamtransfer.utils.errors import UserError

Head = Literal["fcn", "deeplab"]
Norm = Literal["frozen", "synchronised", "own"]
NORMS: dict[str, Norm] = {
    "FrozenBN": "frozen",
    "SyncBN": "synchronised",
    "nnSyncBN": "synchronised",
    "naiveSyncBN": "synchronised",
    "BN": "own",
}
"""Detectron2's names of batch norms: frozen statistics and parameters, those of the whole batch, those of the
images of one process."""


@dataclass(frozen=True)
class SegmenterDesign:
    """The network and its loss.

    Attributes:
        head: torchvision's FCNHead or DeepLabHead.
        output_stride: of the trunk, counted with the stem of ImageNet's ResNets.
        contracted: the first 3x3 convolution of a dilated stage keeps the dilation of the stage before.
        trunk_norm, head_norm: how batch norms see a batch.
        auxiliary: the stage that an auxiliary FCN head sees, res2 to res4; empty for none.
        weight, auxiliary_weight: of the losses.
        align_corners: of the bilinear resizing of logits.
        over_ignored: divide the loss by the number of all pixels, not of the labelled ones.
        short_side, long_side: of a test image; 0: its own size.
    """

    head: Head = "fcn"
    output_stride: int = 32
    contracted: bool = False
    trunk_norm: Norm = "synchronised"
    head_norm: Norm = "synchronised"
    auxiliary: str = ""
    weight: float = 1.0
    auxiliary_weight: float = 0.4
    align_corners: bool = False
    over_ignored: bool = False
    short_side: int = 800
    long_side: int = 1333

    @property
    def test_sides(self) -> tuple[int, int]:
        """Short and long side of test images, for `scaled_size`; 0 and 0 for their own size."""
        return self.short_side, self.long_side if self.short_side else 0


@dataclass(frozen=True)
class SegmenterRecipe(Recipe):
    """The schedule of a segmentation, its `design` and its training images (`crop`).

    Attributes:
        polynomial: the rate falls to `end_lr` as the rest of the steps to this power, instead of at `drops`;
            0: not.
    """

    design: SegmenterDesign = field(default_factory=SegmenterDesign)
    crop: CropRecipe = field(default_factory=lambda: CropRecipe((513, 513)))
    polynomial: float = 0.0
    end_lr: float = 0.0

    def lr_at(self, step: int) -> float:
        """The learning rate of `step`, counted from 0; a warm-up ends at the rate of the step after it."""
        if step >= self.warm_up:
            return self.lr * self._factor(step)
        if not self.polynomial:
            return super().lr_at(step)
        start, end = self.warm_up_from * self._factor(0), self._factor(self.warm_up)
        return self.lr * (start + (end - start) * step / self.warm_up)

    def _factor(self, step: int) -> float:
        if not self.polynomial:
            return milestones(step, self.drops)
        end = self.end_lr / self.lr
        return end + (1 - end) * (1 - min(step / self.steps, 1)) ** self.polynomial

    def check(self, images: int, world_size: int, kind: str = "images") -> None:
        """Raises UserError for what cannot be trained on so many images by so many processes."""
        super().check(images, world_size, kind)
        if self.polynomial and not 0 <= self.end_lr <= self.lr:
            raise UserError(
                f"SOLVER.POLY_END_LR {self.end_lr:g} is not between 0 and SOLVER.BASE_LR {self.lr:g}; "
                "lower it"
            )
        norms = {self.design.trunk_norm, self.design.head_norm}
        if world_size > 1 and norms >= {"synchronised", "own"}:
            raise UserError(
                "MODEL.RESNETS.NORM and MODEL.SEM_SEG_HEAD.NORM are synchronised in one and not in the "
                "other, which torchvision's engine does not do on several processes; make them agree"
            )
        seen = self.batch // world_size if self.design.head_norm == "own" else self.batch
        if self.design.head == "deeplab" and seen < 2:
            raise UserError(
                "--head deeplab has a batch norm over one value an image, which needs 2 images; raise "
                f"SOLVER.IMS_PER_BATCH {self.batch}"
            )


_DESIGN = {
    "MODEL.RESNETS.CONTRACT_DILATION": "contracted",
    "MODEL.SEM_SEG_HEAD.AUX_LOSS_WEIGHT": "auxiliary_weight",
    "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT": "weight",
    "MODEL.SEM_SEG_HEAD.ALIGN_CORNERS": "align_corners",
    "MODEL.SEM_SEG_HEAD.MEAN_OVER_IGNORED": "over_ignored",
    "INPUT.MIN_SIZE_TEST": "short_side",
    "INPUT.MAX_SIZE_TEST": "long_side",
}
_CROP = {
    "INPUT.MASKS.CROP": "crop",
    "INPUT.MASKS.SCALES": "scales",
    "INPUT.MASKS.SHORT_SIDE": "short_side",
    "INPUT.MASKS.LONG_SIDE": "long_side",
    "INPUT.MASKS.MOST_OF_ONE_CLASS": "most_of_one_class",
    "INPUT.MASKS.COLOUR": "colour",
}
_POLYNOMIAL = {"SOLVER.POLY_POWER": "polynomial", "SOLVER.POLY_END_LR": "end_lr"}
_DILATIONS = ("MODEL.RESNETS.RES4_DILATION", "MODEL.RESNETS.RES5_DILATION")
_TRUNK_NORM, _HEAD_NORM = "MODEL.RESNETS.NORM", "MODEL.SEM_SEG_HEAD.NORM"
_IN, _AUXILIARY = "MODEL.SEM_SEG_HEAD.IN_FEATURES", "MODEL.SEM_SEG_HEAD.AUX_IN_FEATURE"
_SCHEDULER, _FLIP = "SOLVER.LR_SCHEDULER_NAME", "INPUT.RANDOM_FLIP"
_WORKERS = "DATALOADER.NUM_WORKERS"
_STAGES = ("res2", "res3", "res4")
_DETECTRON2 = SegmenterRecipe(steps=40_000, lr=0.001, drops=(30_000,))  # its schedule where none is stated
# Settings that this engine cannot change; a file with another value is refused.
_FIXED = {
    "MODEL.META_ARCHITECTURE": "FCNSegmentor",
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "SOLVER.GAMMA": 0.1,
    "SOLVER.WARMUP_METHOD": "linear",
    "SOLVER.NESTEROV": False,
    "SOLVER.BIAS_LR_FACTOR": 1.0,
    "SOLVER.WEIGHT_DECAY_BIAS": None,
    "SOLVER.CLIP_GRADIENTS.ENABLED": False,
    "SOLVER.AMP.ENABLED": False,
}
SEGMENTER_KEYS = (
    *_DESIGN, *SCHEDULE, *_CROP, *_POLYNOMIAL, *_DILATIONS, *DATA, *_FIXED, _TRUNK_NORM, _HEAD_NORM, _IN,
    _AUXILIARY, _SCHEDULER, _FLIP, PRECISE, "MASKS.CLASSES", "MASKS.IGNORE",
    "MASKS.ORIENTATION", _WORKERS,
    "MODEL.DEVICE",
)  # fmt: skip
"""The keys of a configuration that this engine reads."""
_OF_THE_WEIGHTS = ("MODEL.BACKBONE.NAME", "MODEL.RESNETS.OUT_FEATURES", "MODEL.SEM_SEG_HEAD.NAME")


def keys_not_read(settings: Mapping[str, Any]) -> list[str]:
    """The keys that the settings state and that do nothing here, such as the width of Detectron2's head."""
    return sorted(settings.keys() - set(SEGMENTER_KEYS) - set(_OF_THE_WEIGHTS))


def segmenter_recipe_of(settings: Mapping[str, Any], head: Head) -> SegmenterRecipe:
    """The recipe of flat settings with a head of torchvision; an absent key takes Detectron2's value.

    Raises:
        UserError: a setting is not supported here (semantic FPN, frozen stages …), or a value is out of
            range or of another type.
    """
    refuse_others(settings, _FIXED)
    if type(settings.get(_WORKERS, 0)) is not int or settings.get(_WORKERS, 0) < 0:
        raise UserError(f"{_WORKERS} is {settings[_WORKERS]!r}; give a whole number from 0 on")
    design = _design_of(settings, head)
    recipe = replaced(replace(_DETECTRON2, design=design), settings, SCHEDULE)
    flip = settings.get(_FLIP, "horizontal")
    if flip not in ("none", "horizontal"):
        raise UserError(f"{_FLIP} is {flip!r}; masks are mirrored by horizontal or none")
    crop = replaced(CropRecipe((513, 513), flip=flip != "none"), settings, _CROP)
    recipe = replace(recipe, crop=crop)
    scheduler = settings.get(_SCHEDULER, "WarmupMultiStepLR")
    if scheduler == "PolyLR":
        recipe = replaced(replace(recipe, polynomial=0.9), settings, _POLYNOMIAL)
    elif scheduler != "WarmupMultiStepLR":
        raise UserError(
            f"{_SCHEDULER} is {scheduler!r}, and torchvision's engine has WarmupMultiStepLR and PolyLR; "
            "take one of them, or Detectron2's engine"
        )
    return recipe if settings.get(PRECISE, False) else replace(recipe, precise_batches=0)


def _design_of(settings: Mapping[str, Any], head: Head) -> SegmenterDesign:
    features, auxiliary = settings.get(_IN, ["res5"]), settings.get(_AUXILIARY, "")
    if list(features) != ["res5"]:
        raise UserError(
            f"{_IN} is {features!r}; give ('res5',), which is all that torchvision's engine takes"
        )
    if auxiliary not in ("", *_STAGES):
        raise UserError(f"{_AUXILIARY} is {auxiliary!r}; take {', '.join(_STAGES)}, or '' for none")
    design = SegmenterDesign(
        head=head,
        output_stride=output_stride(*(settings.get(key, 1) for key in _DILATIONS)),
        trunk_norm=_norm(settings, _TRUNK_NORM, NORMS),
        head_norm=_norm(
            settings, _HEAD_NORM, {name: kind for name, kind in NORMS.items() if kind != "frozen"}
        ),
        auxiliary=auxiliary,
    )
    return replaced(design, settings, _DESIGN)


def _norm(settings: Mapping[str, Any], key: str, kinds: Mapping[str, Norm]) -> Norm:
    """The kind of batch norm that `key` states; synchronised where it states none."""
    name = settings.get(key, "SyncBN")
    if name not in kinds:
        raise UserError(
            f"{key} is {name!r}, and torchvision's networks have batch norms there; take {', '.join(kinds)}, "
            "or Detectron2's engine"
        )
    return kinds[name]
