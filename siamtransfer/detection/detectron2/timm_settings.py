"""The keys MODEL.TIMM of Detectron2's configuration, which name a network of timm; needs no Detectron2."""

from __future__ import annotations

from typing import Any

import torch

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.detection.build_pyramid import PyramidOptions, is_plain_vit
from siamtransfer.detection.pyramid_trunk import LEVELS
from siamtransfer.detection.stage_trunk import stage_facts
from siamtransfer.detection.vit_pyramid import VitOptions, build_vit_pyramid, needed_patch_size
from siamtransfer.detection.vit_settings import configured_vit
from siamtransfer.utils.errors import UserError

TIMM_FPN = "build_siamtransfer_timm_fpn_backbone"
VIT_PYRAMID = "build_siamtransfer_vit_pyramid_backbone"
TIMM_LAYOUTS = {TIMM_FPN: "timm", VIT_PYRAMID: "ViT"}
"""The names for MODEL.BACKBONE.NAME of timm's networks, and the layouts that they build."""
SYNCHRONISED = ("SyncBN", "nnSyncBN", "naiveSyncBN")
FROZEN = "FrozenBN"
_NORMS = ("BN", *SYNCHRONISED, FROZEN)


def timm_settings(architecture: Architecture) -> list[tuple[str, Any]]:
    """The settings of a network of timm beside those of all weights, as (full name, value).

    Raises:
        UserError: no trunk of a feature pyramid can be made of the network.
    """
    vit = is_plain_vit(architecture)
    shown = architecture.as_dict()
    settings: list[tuple[str, Any]] = [
        ("MODEL.BACKBONE.NAME", VIT_PYRAMID if vit else TIMM_FPN),
        ("MODEL.TIMM.NAME", architecture.name),
        (
            "MODEL.TIMM.OPTIONS",
            [
                word
                for field, value in shown.items()
                if field not in ("name", "width", "stem")
                for word in (field, value)
            ],
        ),
    ]
    if vit and (patch := needed_patch_size(architecture)):
        settings.append(("MODEL.VIT.PATCH_SIZE", patch))
    if not vit:
        settings += [
            ("MODEL.TIMM.MAP_NORM", stage_facts(architecture).map_norm),
            ("MODEL.FPN.IN_FEATURES", list(LEVELS)),
        ]
    return settings


def configured_architecture(cfg: Any) -> Architecture:
    """The network that MODEL.TIMM names.

    Raises:
        UserError: it names none, or its OPTIONS are not NAME, VALUE pairs of known names.
    """
    name, options = cfg.MODEL.TIMM.NAME, list(cfg.MODEL.TIMM.OPTIONS)
    if not name:
        raise UserError(
            f"MODEL.BACKBONE.NAME is {cfg.MODEL.BACKBONE.NAME} and MODEL.TIMM.NAME is empty; give --weights "
            "OUT.pkl of a network of timm, or name one, such as timm:convnext_tiny"
        )
    known = [field for field in Architecture._fields if field not in ("name", "width", "stem")]
    pairs = dict(zip(options[::2], options[1::2], strict=False))
    if len(options) % 2 or not set(pairs) <= set(known):
        raise UserError(
            f"MODEL.TIMM.OPTIONS is {options}, and has to be NAME, VALUE, NAME, VALUE ... of "
            f"{', '.join(known)}"
        )
    architecture = Architecture(name, **pairs)
    architecture.shapes()  # refuses an unknown name, and options that the network does not have
    return architecture


def pyramid_options(cfg: Any) -> PyramidOptions:
    """What the configuration chooses about the trunk.

    Raises:
        UserError: a value is not possible.
    """
    keys = cfg.MODEL.TIMM
    if not 0 <= keys.DROP_PATH < 1:
        raise UserError(f"MODEL.TIMM.DROP_PATH is {keys.DROP_PATH}; it has to be at least 0 and below 1")
    if keys.MAP_NORM not in ("", "LN"):
        raise UserError(f"MODEL.TIMM.MAP_NORM is {keys.MAP_NORM!r}; it is LN, or empty for none")
    vit = configured_vit(cfg) if cfg.MODEL.BACKBONE.NAME == VIT_PYRAMID else VitOptions()
    return PyramidOptions(drop_path=keys.DROP_PATH, map_norm=keys.MAP_NORM, vit=vit)


def check_timm_settings(cfg: Any) -> None:
    """Checks a configuration whose trunk is a network of timm; any other passes.

    Raises:
        UserError: the network cannot be built so, or stages of it are to be frozen.
    """
    name = cfg.MODEL.BACKBONE.NAME
    if name not in TIMM_LAYOUTS:
        return
    architecture = configured_architecture(cfg)
    if is_plain_vit(architecture) != (name == VIT_PYRAMID):
        other = TIMM_FPN if name == VIT_PYRAMID else VIT_PYRAMID
        raise UserError(f"MODEL.BACKBONE.NAME is {name}, and {architecture.name} needs {other}")
    if name == TIMM_FPN:
        stage_facts(architecture)  # refuses a network without the maps
    if cfg.MODEL.BACKBONE.FREEZE_AT != 0:
        raise UserError(
            f"MODEL.BACKBONE.FREEZE_AT is {cfg.MODEL.BACKBONE.FREEZE_AT}, which counts the stages of a "
            f"ResNet; for {architecture.name} it has to be 0"
        )
    if cfg.MODEL.RESNETS.NORM not in _NORMS:
        raise UserError(
            f"MODEL.RESNETS.NORM is {cfg.MODEL.RESNETS.NORM!r}, and {architecture.name} keeps its own norms; "
            f"take {', '.join(_NORMS)}, which says how batch norms among them train"
        )
    options = pyramid_options(cfg)
    if name == VIT_PYRAMID:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):  # refuses windows, patches and levels
            build_vit_pyramid(architecture, options.vit)
