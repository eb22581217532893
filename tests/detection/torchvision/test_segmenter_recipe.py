"""The recipe of a segmentation in torchvision: shipped files, rates, settings that are refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support import paths

from siamtransfer.detection.detectron2.compat import import_detectron2, is_installed
from siamtransfer.detection.layered_config import read_layered_config
from siamtransfer.detection.torchvision.segmenter_recipe import (
    SegmenterDesign,
    SegmenterRecipe,
    keys_not_read,
    segmenter_recipe_of,
)
from siamtransfer.segmentation.random_crop import CropRecipe
from siamtransfer.utils.errors import UserError

CONFIGS = paths.CONFIGS / "detection"


def settings_of(name: str, *more: str) -> dict[str, Any]:
    layered = read_layered_config([CONFIGS / f"{name}.yaml"], more)
    return {key: stated.value for key, stated in layered.items()}


def test_recipes_of_the_shipped_files() -> None:
    voc = segmenter_recipe_of(settings_of("voc12-fcn16"), "fcn")
    assert (voc.steps, voc.batch, voc.lr, voc.drops) == (30_000, 16, 0.003, (21_000, 27_000))
    assert voc.design == SegmenterDesign(output_stride=16, align_corners=True, short_side=0)
    assert voc.crop == CropRecipe((513, 513), (0.5, 2.0)) and voc.precise_batches == 0
    d8 = segmenter_recipe_of(settings_of("voc12-fcn-d8-20k"), "deeplab")
    assert d8.design == SegmenterDesign(
        head="deeplab", output_stride=8, contracted=True, auxiliary="res4", over_ignored=True,
        short_side=512, long_side=2048,
    )  # fmt: skip
    assert d8.crop == CropRecipe((512, 512), (0.5, 2.0), 512, 2048, 0.75, colour=True)
    assert (d8.polynomial, d8.end_lr, d8.norm_weight_decay) == (0.9, 1e-4, 5e-4)
    assert keys_not_read(settings_of("scenes-fcn")) == [
        f"MODEL.SEM_SEG_HEAD.{key}" for key in ("CONVS_DIM", "DILATION", "NUM_CONVS")
    ]
    own = segmenter_recipe_of(settings_of("scenes-fcn", "INPUT.RANDOM_FLIP", "none"), "fcn")
    assert not own.crop.flip and own.design.output_stride == 8


def test_polynomial_rate() -> None:
    recipe = SegmenterRecipe(lr=0.01, steps=50, warm_up=0, polynomial=0.9, end_lr=1e-4)
    expected = [(0.01 - 1e-4) * (1 - step / 50) ** 0.9 + 1e-4 for step in range(50)]
    assert [recipe.lr_at(step) for step in range(50)] == pytest.approx(expected)


@pytest.mark.detectron2
@pytest.mark.skipif(not is_installed(), reason="Detectron2 is not installed")
def test_rates_with_warm_up_are_detectron2s() -> None:
    import_detectron2()
    from detectron2.solver import build_lr_scheduler

    from siamtransfer.detection.detectron2.own_keys import default_settings
    from siamtransfer.detection.detectron2.poly_lr import build_poly_lr

    keys = {"MAX_ITER": 40, "STEPS": (20, 30), "WARMUP_ITERS": 15, "BASE_LR": 0.02, "POLY_END_LR": 0.001}
    for name, build in (("WarmupMultiStepLR", build_lr_scheduler), ("PolyLR", build_poly_lr)):
        cfg = default_settings()
        cfg.SOLVER.update(keys | {"LR_SCHEDULER_NAME": name})
        stated = {f"SOLVER.{key}": cfg.SOLVER[key] for key in (*keys, "LR_SCHEDULER_NAME")}
        recipe = segmenter_recipe_of({**stated, "SOLVER.STEPS": [20, 30]}, "fcn")
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.02)
        scheduler = build(cfg, optimizer)
        for step in range(40):
            assert recipe.lr_at(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)
            optimizer.step()
            scheduler.step()


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("MODEL.RESNETS.RES5_DILATION", 3, "are 1 and 3; take 1 and 1, 1 and 2"),
        ("MODEL.META_ARCHITECTURE", "SemanticSegmentor", "torchvision's engine has 'FCNSegmentor' only"),
        ("MODEL.BACKBONE.FREEZE_AT", 2, "FREEZE_AT is 2, and torchvision's engine has 0 only"),
        ("MODEL.SEM_SEG_HEAD.IN_FEATURES", ["res4"], r"give \(.res5.,\), which is all"),
        ("MODEL.SEM_SEG_HEAD.AUX_IN_FEATURE", "res5", "take res2, res3, res4, or '' for none"),
        ("MODEL.RESNETS.NORM", "GN", "NORM is 'GN', .* take FrozenBN, SyncBN"),
        ("MODEL.SEM_SEG_HEAD.NORM", "FrozenBN", "take SyncBN, nnSyncBN, naiveSyncBN, BN, or"),
        ("SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR", "has WarmupMultiStepLR and PolyLR"),
        ("SOLVER.CLIP_GRADIENTS.ENABLED", True, "CLIP_GRADIENTS.ENABLED is True"),
        ("INPUT.RANDOM_FLIP", "vertical", "mirrored by horizontal or none"),
        ("INPUT.MASKS.SCALES", (2.0, 0.5), r"INPUT\.MASKS\.SCALES is \(2\.0, 0\.5\)"),
        ("SOLVER.MAX_ITER", "many", "SOLVER.MAX_ITER is 'many', and it has to be a int"),
        ("DATALOADER.NUM_WORKERS", -1, "NUM_WORKERS is -1; give a whole number from 0 on"),
    ],
)
def test_settings_that_are_refused(key: str, value: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        segmenter_recipe_of({**settings_of("base-fcn16"), key: value}, "fcn")
