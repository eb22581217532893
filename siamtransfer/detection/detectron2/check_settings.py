"""What no network and no schedule can be built of is refused before a run writes anything."""

from __future__ import annotations

from typing import Any

import torch

from siamtransfer.detection.detectron2.optimizer import check_own_optimizer
from siamtransfer.detection.detectron2.poly_lr import POLY, check_poly_lr
from siamtransfer.detection.detectron2.segmentor import SEGMENTOR
from siamtransfer.detection.detectron2.timm_settings import TIMM_LAYOUTS, VIT_PYRAMID, check_timm_settings
from siamtransfer.detection.detectron2.trunk import PLAIN, SMALL_STEM_PLAIN
from siamtransfer.detection.dilations import output_stride
from siamtransfer.utils.errors import UserError

_DETECTRON2S = "build_resnet_backbone"
_CHANNELS = 32  # of a norm that is tried; a multiple of GN's groups


def check_settings(cfg: Any) -> None:
    """Checks Detectron2's CfgNode of a run, fitted to its data.

    Raises:
        UserError: no trunk has the dilations, the head takes a feature that the trunk does not give, a norm
            does not exist, images cannot be jittered, or the rate ends above its beginning.
    """
    _check_dilations(cfg)
    check_timm_settings(cfg)
    check_own_optimizer(cfg)
    _check_norms(cfg)
    jittered, architecture = cfg.INPUT.LARGE_JITTER.SIZE, cfg.MODEL.META_ARCHITECTURE
    if jittered and architecture not in ("GeneralizedRCNN", "RetinaNet"):
        raise UserError(
            f"INPUT.LARGE_JITTER.SIZE is {jittered}, and {architecture} has a mapper of images that does not "
            "jitter; set it to 0"
        )
    if cfg.SOLVER.LR_SCHEDULER_NAME == POLY:
        check_poly_lr(cfg.SOLVER)
    if cfg.MODEL.META_ARCHITECTURE == SEGMENTOR:
        from detectron2.modeling import META_ARCH_REGISTRY

        with torch.device("meta"):  # shapes only: no memory, no time
            META_ARCH_REGISTRY.get(SEGMENTOR)(cfg)


def _check_norms(cfg: Any) -> None:
    """Release 0.6 has no layer norm; building the model would end in a KeyError.

    A network of timm and the levels of a ViT have their norms checked by `check_timm_settings`.
    """
    from detectron2.layers import get_norm

    trunk = cfg.MODEL.BACKBONE.NAME
    sections = ["ROI_BOX_HEAD", "ROI_MASK_HEAD", "SEM_SEG_HEAD"]
    if trunk not in TIMM_LAYOUTS:
        sections.append("RESNETS")
    if trunk != VIT_PYRAMID:
        sections.append("FPN")
    for section in sections:
        norm = cfg.MODEL[section].NORM
        try:
            get_norm(norm, _CHANNELS)
        except KeyError as error:
            raise UserError(
                f"MODEL.{section}.NORM is {norm!r}, which this Detectron2 does not have; take GN, or for LN "
                "Detectron2's main branch"
            ) from error


def _check_dilations(cfg: Any) -> None:
    resnets, name = cfg.MODEL.RESNETS, cfg.MODEL.BACKBONE.NAME
    stride = output_stride(resnets.RES4_DILATION, resnets.RES5_DILATION)
    if name in (PLAIN, SMALL_STEM_PLAIN):
        return
    dilates_res5 = name == _DETECTRON2S and cfg.MODEL.META_ARCHITECTURE != "GeneralizedRCNN"
    if resnets.CONTRACT_DILATION or stride not in ((32, 16) if dilates_res5 else (32,)):
        raise UserError(
            f"MODEL.RESNETS.RES4_DILATION, RES5_DILATION and CONTRACT_DILATION are {resnets.RES4_DILATION}, "
            f"{resnets.RES5_DILATION} and {resnets.CONTRACT_DILATION}, and {name} of "
            f"{cfg.MODEL.META_ARCHITECTURE} has no such trunk; leave them out"
            + ("" if name in TIMM_LAYOUTS else ", or take a configuration of FCNSegmentor")
        )
