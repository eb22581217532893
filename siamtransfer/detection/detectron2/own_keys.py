"""Detectron2's configuration with the keys of this project, each of which does nothing by default."""

from __future__ import annotations

from typing import Any

from siamtransfer.detection.detectron2.optimizer import PLAIN as OPTIMIZER_KEYS
from siamtransfer.detection.vit_settings import VIT_KEYS


def default_settings() -> Any:
    """Detectron2's CfgNode of defaults and this project's own keys in its sections.

    MODEL.RESNETS.RES4_DILATION 2 with RES5_DILATION 4 gives output stride 8. CONTRACT_DILATION leaves the
    first 3x3 convolution of a dilated stage the dilation of the stage before (torchvision, mmsegmentation).

    MODEL.SEM_SEG_HEAD, of the head FCNHead: NUM_CONVS 3x3 convolutions of CONVS_DIM channels and DILATION;
    CONCAT_INPUT, a further one over them and the input; DROPOUT of whole channels; AUX_IN_FEATURE, a second
    head of one convolution of AUX_CONVS_DIM channels on that feature, with AUX_LOSS_WEIGHT; ALIGN_CORNERS of
    the bilinear resizing; MEAN_OVER_IGNORED, the loss divided by the number of all pixels, not of the
    labelled ones.

    INPUT.MASKS, of training images with masks: SCALES, the range of the random factor; SHORT_SIDE and
    LONG_SIDE, the size to which the factor refers (0: the image's own); CROP, height and width;
    MOST_OF_ONE_CLASS, the fraction of a crop's labelled pixels from which on another crop is drawn; COLOUR,
    the distortion of brightness, contrast, saturation and hue.

    MODEL.TIMM, of a trunk that is a network of timm: its NAME, and OPTIONS, the fields of its Architecture
    that differ from the usual, as a list NAME, VALUE, NAME ...; MAP_NORM, `LN` where a layer norm is on each
    map below the pyramid; DROP_PATH, the rate of stochastic depth in training.

    INPUT.LARGE_JITTER, of training images with objects: SIZE, the side of the square that is cut out (0:
    images are resized to MIN_SIZE_TRAIN instead); SCALES, the range of the random factor before.

    MODEL.VIT, of a trunk that is a plain ViT: the fields of VitOptions (vit_pyramid.py).

    SOLVER.POLY_POWER and POLY_END_LR belong to the schedule PolyLR. OPTIMIZER is SGD, or AdamW with BETAS;
    LAYER_DECAY the factor of the rate from a layer of the trunk to the one before it; NO_DECAY the names of
    parameters without weight decay.
    """
    from detectron2.config import CfgNode, get_cfg

    cfg = get_cfg()
    resnets, head, solver = cfg.MODEL.RESNETS, cfg.MODEL.SEM_SEG_HEAD, cfg.SOLVER
    resnets.RES4_DILATION, resnets.CONTRACT_DILATION = 1, False
    head.NUM_CONVS, head.DILATION, head.CONCAT_INPUT, head.DROPOUT = 2, 1, False, 0.0
    head.AUX_IN_FEATURE, head.AUX_CONVS_DIM, head.AUX_LOSS_WEIGHT = "", 256, 0.4
    head.ALIGN_CORNERS, head.MEAN_OVER_IGNORED = False, False
    cfg.MODEL.TIMM = CfgNode({"NAME": "", "OPTIONS": [], "MAP_NORM": "", "DROP_PATH": 0.0})
    cfg.MODEL.VIT = CfgNode({key.split(".")[-1]: value for key, value in VIT_KEYS.items()})
    cfg.INPUT.LARGE_JITTER = CfgNode({"SIZE": 0, "SCALES": (0.1, 2.0)})
    cfg.INPUT.MASKS = CfgNode(
        {
            "SCALES": (0.5, 2.0),
            "SHORT_SIDE": 0,
            "LONG_SIDE": 0,
            "CROP": (513, 513),
            "MOST_OF_ONE_CLASS": 1.0,
            "COLOUR": False,
        }
    )
    solver.POLY_POWER, solver.POLY_END_LR = 0.9, 0.0
    for key, value in OPTIMIZER_KEYS.items():
        solver[key] = value
    return cfg
