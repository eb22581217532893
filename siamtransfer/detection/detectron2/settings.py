"""Detectron2's configuration of a run: what a layered configuration states, fitted to data and device.

weights_config.py adds what belongs to converted weights.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from siamtransfer.detection.detectron2.compat import import_detectron2
from siamtransfer.detection.detectron2.own_keys import default_settings
from siamtransfer.detection.detectron2.segmentor import SEGMENTOR
from siamtransfer.detection.detectron2.timm_settings import TIMM_LAYOUTS
from siamtransfer.detection.layered_config import OWN_SECTIONS, LayeredConfig
from siamtransfer.detection.tasks.task import Task
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.strict_json import flatten

NEEDED_BESIDE_WEIGHTS = (
    "INPUT.FORMAT",
    "MODEL.PIXEL_MEAN",
    "MODEL.PIXEL_STD",
    "MODEL.RESNETS.STRIDE_IN_1X1",
)
NOT_IN_RECORD = (  # these move no number, or the record has them elsewhere
    "MODEL.DEVICE",
    "MODEL.WEIGHTS",
    "OUTPUT_DIR",
    "DATALOADER.NUM_WORKERS",
    "SEED",
    "SOLVER.CHECKPOINT_PERIOD",
    "DATASETS.TRAIN",
    "DATASETS.TEST",
)
SECTIONS_WITH_NORM = ("RESNETS", "FPN", "ROI_BOX_HEAD", "ROI_MASK_HEAD", "SEM_SEG_HEAD")
GPU_NORMS = ("SyncBN", "nnSyncBN")


def build_settings(layered: LayeredConfig) -> Any:
    """Detectron2's CfgNode: its defaults, and over them what is stated.

    Raises:
        UserError: a key is unknown (names the nearest), or a value is of another type.
    """
    import_detectron2()
    cfg = default_settings()
    known = flatten(cfg)
    for key, (value, where) in layered.items():
        if key.startswith(OWN_SECTIONS):
            continue
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UserError(f"{where} has the key {key}, which Detectron2 does not know{hint}")
        try:
            cfg.merge_from_list([key, value])
        except (AssertionError, KeyError, ValueError) as error:
            raise UserError(f"{key} by {where}: {' '.join(str(error).split())}") from error
    return cfg


def require_weights_keys(layered: LayeredConfig) -> None:
    """Checks that a configuration without a weights config says itself how its weights take an image.

    Raises:
        UserError: MODEL.WEIGHTS, or a key that belongs to it, is not stated.
    """
    if "MODEL.WEIGHTS" not in layered:
        raise UserError(
            "there are no weights: give --weights OUT.pkl (from siamtransfer to-d2), or lay "
            "configs/detection/supervised.yaml or scratch.yaml over the configuration"
        )
    absent = [key for key in NEEDED_BESIDE_WEIGHTS if key not in layered]
    if absent:
        raise UserError(
            f"MODEL.WEIGHTS is given without {absent[0]}, which belongs to it; state it, or give --weights "
            "OUT.pkl with its OUT.yaml"
        )


def fit_to_run(settings: Any, task: Task, overrides: Mapping[str, float]) -> Any:
    """A copy of `settings` with the overrides and with what follows from the data of the task.

    Raises:
        UserError: the settings ask for what the data do not have.
    """
    cfg = settings.clone()
    cfg.merge_from_list([item for pair in overrides.items() for item in pair])
    task.fit_settings(cfg)
    return cfg


def fit_to_device(cfg: Any, device: str) -> list[str]:
    """Sets the device and, on the CPU, norms that work there; returns the changes, one sentence each.

    Torch's synchronised norms refuse CPU tensors. One process sees every image of the batch there, so plain
    BN computes the same statistics.
    """
    cfg.MODEL.DEVICE = device
    if device != "cpu":
        return []
    changes = []
    for name in SECTIONS_WITH_NORM:
        section = cfg.MODEL[name]
        if section.NORM in GPU_NORMS:
            changes.append(f"MODEL.{name}.NORM is BN, because {section.NORM} refuses the CPU")
            section.NORM = "BN"
    return changes


def layout_of(cfg: Any) -> str:
    """C4, whose RoI heads own res5; FPN, whose trunk has it below a pyramid; plain, a trunk of its own; timm,
    a network of timm below a pyramid; or ViT, one that is a pyramid itself."""
    if cfg.MODEL.BACKBONE.NAME in TIMM_LAYOUTS:
        return TIMM_LAYOUTS[cfg.MODEL.BACKBONE.NAME]
    if "fpn" in cfg.MODEL.BACKBONE.NAME:
        return "FPN"
    return "plain" if cfg.MODEL.META_ARCHITECTURE == SEGMENTOR else "C4"


def recorded_settings(cfg: Any) -> dict[str, Any]:
    """Every key that moves a number and is not Detectron2's default, by its full name, for a record."""
    defaults = flatten(default_settings())
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in sorted(flatten(cfg).items())
        if key not in NOT_IN_RECORD and value != defaults[key]
    }
