"""Detectron2's configuration of a run: what the layers state, and what weights, data and device ask.

What belongs to the weights (OUT.yaml: channel order, mean, std, the stride's place, the trunk's size) is
filled in where the layers are silent; where they say something else, the run is refused with the key's name.
"""

from __future__ import annotations

import difflib
import math
from pathlib import Path
from typing import Any

from siamtransfer.data.imageset import printable
from siamtransfer.data.scenes.export import SceneCounts
from siamtransfer.detection.data.datasets import DetectionData
from siamtransfer.detection.detectron2.compat import import_detectron2
from siamtransfer.detection.layered_config import LayeredConfig, read_layered_config
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.strict_json import flatten

SCENES = ("FORMAT", "TRAIN", "TEST", "SIZE", "SEED")
STATED_BY_PROTOCOL = ("MODEL.BACKBONE.FREEZE_AT", "MODEL.RESNETS.NORM")  # OUT.yaml only proposes these
STATED_BY_TRUNK = ("MODEL.BACKBONE.NAME", "MODEL.RPN.IN_FEATURES", "MODEL.ROI_HEADS.IN_FEATURES")
WITH_WEIGHTS = ("INPUT.FORMAT", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD", "MODEL.RESNETS.STRIDE_IN_1X1")
CONVERTED = {"INPUT.FORMAT": "RGB", "MODEL.RESNETS.STRIDE_IN_1X1": False}  # true of every converted trunk
PLACE = (
    "MODEL.DEVICE", "MODEL.WEIGHTS", "OUTPUT_DIR",
    "DATALOADER.NUM_WORKERS", "SEED", "SOLVER.CHECKPOINT_PERIOD",
)  # fmt: skip
NORMS = ("RESNETS", "FPN", "ROI_BOX_HEAD", "ROI_MASK_HEAD")
NEEDS_GPU = ("SyncBN", "nnSyncBN")


def build_settings(layers: LayeredConfig) -> Any:
    """Detectron2's CfgNode with its defaults and all that is stated.

    Raises:
        UserError: a key is unknown (names the nearest), or a value is of another type.
    """
    import_detectron2()
    from detectron2.config import get_cfg

    cfg = get_cfg()
    known = flatten(cfg)
    for key, (value, where) in layers.items():
        if key.startswith("SCENES."):
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


def scenes(layers: LayeredConfig) -> tuple[Any, SceneCounts]:
    """The format and the counts of the Fashion Scenes that the section SCENES, which is ours, asks for."""
    given = {
        key.removeprefix("SCENES."): stated for key, stated in layers.items() if key.startswith("SCENES.")
    }
    for key, stated in given.items():
        if key not in SCENES:
            raise UserError(f"{stated.where} has the key SCENES.{key}; the section has {', '.join(SCENES)}")
        if key != "FORMAT" and type(stated.value) is not int:
            raise UserError(f"SCENES.{key} by {stated.where} is {stated.value!r}; give a whole number")
    values = {key: stated.value for key, stated in given.items()}
    kind = values.pop("FORMAT", "coco")
    if kind not in ("voc", "coco"):
        raise UserError(f"SCENES.FORMAT is {kind!r}; take voc or coco")
    return kind, SceneCounts(**{key.lower(): value for key, value in values.items()})


def lay_weights(cfg: Any, layers: LayeredConfig, weights: Path) -> None:
    """Puts what OUT.yaml says of OUT.pkl, `weights`, under the layers, and refuses a contradiction by
    name."""
    overlay = weights.with_suffix(".yaml")
    needed = read_layered_config([overlay], [])
    for key, value in CONVERTED.items():
        if key not in needed or needed[key].value != value:
            raise UserError(
                f"{printable(overlay)} does not set {key} to {value!r}, which converted weights need: the "
                "file was "
                "changed; convert the checkpoint again"
            )
    for key, (value, _) in needed.items():
        if key == "MODEL.WEIGHTS" or (key in layers and key in STATED_BY_PROTOCOL):
            continue
        if key in layers and key not in STATED_BY_TRUNK and not _same(layers[key].value, value):
            raise UserError(
                f"{key} is {layers[key].value!r} by {layers[key].where}, and {weights.name} needs {value!r} "
                f"({overlay.name} says so); leave the key to the weights"
            )
        if key == "MODEL.BACKBONE.NAME":
            _refuse_another_layout(cfg, weights)
        cfg.merge_from_list([key, value])
    if layout(cfg) == "C4" and cfg.MODEL.RESNETS.DEPTH < 50:
        raise _fpn_only(weights, f"a ResNet-{cfg.MODEL.RESNETS.DEPTH}")
    cfg.MODEL.WEIGHTS = str(weights)


def require_stated(layers: LayeredConfig) -> None:
    """Without an OUT.yaml the layers themselves have to say how their weights take an image."""
    if "MODEL.WEIGHTS" not in layers:
        raise UserError(
            "there are no weights: give --weights OUT.pkl (from convert/to_d2.py), or lay "
            "configs/detection/supervised.yaml or scratch.yaml over the configuration"
        )
    absent = [key for key in WITH_WEIGHTS if key not in layers]
    if absent:
        raise UserError(
            f"MODEL.WEIGHTS is given without {absent[0]}, which belongs to it; state it, or give --weights "
            "OUT.pkl "
            "with its OUT.yaml"
        )


def fit_to_data(cfg: Any, data: DetectionData, names: tuple[str, str]) -> None:
    """Names the registered data, their number of classes and the form of their masks.

    Raises:
        UserError: masks are to be learnt and the data have none.
    """
    if cfg.MODEL.MASK_ON and not data.has_masks:
        raise UserError(
            f"MODEL.MASK_ON is set and {data.train_splits[0].name} or {data.test_split.name} has boxes only; "
            "append "
            "MODEL.MASK_ON False"
        )
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (names[0],), (names[1],)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = cfg.MODEL.RETINANET.NUM_CLASSES = len(data.classes)
    cfg.INPUT.MASK_FORMAT = data.mask_format


def fit_to_device(cfg: Any, device: str) -> list[str]:
    """Sets the device and, on the CPU, the norms that work there; returns what was changed, in words.

    Synchronised norms of torch refuse CPU tensors. One process sees the whole batch, so plain BN computes
    the same statistics there.
    """
    cfg.MODEL.DEVICE = device
    if device != "cpu":
        return []
    changed = []
    for name in NORMS:
        section = cfg.MODEL[name]
        if section.NORM in NEEDS_GPU:
            changed.append(f"MODEL.{name}.NORM is BN, because {section.NORM} refuses the CPU")
            section.NORM = "BN"
    return changed


def layout(cfg: Any) -> str:
    """C4, whose RoI heads own res5, or FPN, whose trunk has it."""
    return "FPN" if "fpn" in cfg.MODEL.BACKBONE.NAME else "C4"


def what_differs(cfg: Any) -> dict[str, Any]:
    """Every key that moves a number and is not Detectron2's default, by its full name: for a record."""
    from detectron2.config import get_cfg

    base = flatten(get_cfg())
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in sorted(flatten(cfg).items())
        if key not in (*PLACE, "DATASETS.TRAIN", "DATASETS.TEST") and value != base[key]
    }


def _refuse_another_layout(cfg: Any, weights: Path) -> None:
    if layout(cfg) == "C4":
        raise _fpn_only(weights, "a trunk that Detectron2 lacks")
    if cfg.MODEL.META_ARCHITECTURE != "GeneralizedRCNN":
        raise UserError(
            f"{weights.name} needs a trunk that Detectron2 lacks, and {cfg.MODEL.META_ARCHITECTURE} is only "
            "built "
            "on Detectron2's own; take an FPN configuration of R-CNN"
        )


def _fpn_only(weights: Path, what: str) -> UserError:
    return UserError(
        f"{weights.name} holds {what}, which the C4 layout with its head of bottleneck blocks cannot take; "
        "choose "
        "an FPN configuration, such as configs/detection/coco-fpn-1x.yaml"
    )


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, float | int) and isinstance(b, float | int):
        return math.isclose(a, b, rel_tol=1e-6)
    return a == b
