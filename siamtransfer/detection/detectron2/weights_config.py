"""The Detectron2 settings that belong to converted weights: OUT.yaml beside OUT.pkl, written and merged.

Detectron2's defaults are for weights of 2017 (BGR, no division by the std, the stride in the 1x1
convolution). With a torchvision trunk they cost several AP, and no message says so. OUT.yaml, the weights
config, holds what these weights need; its stamp is the digest of the weights. A configuration that
contradicts it is refused with the name of the key.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.backbones.names import FULL_WIDTH, RESNETS, WITHOUT_WEIGHTS
from siamtransfer.checkpoints.file_format import Normalisation
from siamtransfer.checkpoints.recorded_reading import read_recorded, record_comment
from siamtransfer.detection.detectron2.segmentor import SEGMENTOR
from siamtransfer.detection.detectron2.settings import layout_of
from siamtransfer.detection.detectron2.timm_settings import TIMM_LAYOUTS, timm_settings
from siamtransfer.detection.detectron2.trunk import (
    OWN_FPN,
    PLAIN,
    SMALL_STEM_FPN,
    SMALL_STEM_PLAIN,
)
from siamtransfer.detection.layered_config import LayeredConfig, read_layered_config
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import printable

_STAMP = "siamtransfer-weights: sha256:"
_BEFORE_RECORDS = {"INPUT.FORMAT": "RGB", "MODEL.RESNETS.STRIDE_IN_1X1": False}
"""What OUT.yaml sets without fail where it is from before its line `siamtransfer-reading`."""
_PROTOCOL_KEYS = (  # OUT.yaml only proposes these
    "MODEL.BACKBONE.FREEZE_AT",
    "MODEL.RESNETS.NORM",
    "MODEL.TIMM.MAP_NORM",
    "MODEL.FPN.IN_FEATURES",
)
_WITH_OWN_TRUNK = ("GeneralizedRCNN", "PanopticFPN", "SemanticSegmentor", SEGMENTOR)
_TRUNK_KEYS = ("MODEL.BACKBONE.NAME", "MODEL.RPN.IN_FEATURES", "MODEL.ROI_HEADS.IN_FEATURES")


# Writing OUT.yaml.


def settings_for(
    architecture: Architecture, normalisation: Normalisation, weights: str
) -> list[tuple[str, Any]]:
    """The settings as (full name, value), in the order in which they are written.

    `weights` becomes MODEL.WEIGHTS; `normalisation` is in units of images in [0, 1], the settings are in
    0..255.
    """
    images: list[tuple[str, Any]] = [
        ("MODEL.WEIGHTS", weights),
        ("MODEL.PIXEL_MEAN", [255 * value for value in normalisation.mean]),
        ("MODEL.PIXEL_STD", [255 * value for value in normalisation.std]),
    ]
    trunk = _resnet_settings if architecture.name in RESNETS else timm_settings
    frozen, norm = ("MODEL.BACKBONE.FREEZE_AT", 0), ("MODEL.RESNETS.NORM", "naiveSyncBN")
    return [*images, *trunk(architecture), frozen, norm, ("INPUT.FORMAT", "RGB")]


def _resnet_settings(architecture: Architecture) -> list[tuple[str, Any]]:
    """Which ResNet it is."""
    design, width = RESNETS[architecture.name], architecture.width or FULL_WIDTH
    plain = {(d.block, d.blocks): name for name, d in reversed(RESNETS.items()) if name.startswith("resnet")}
    depth = int(plain[design.block, design.blocks].removeprefix("resnet"))
    own_trunk: list[tuple[str, Any]] = []
    if architecture.stem == "small":
        own_trunk = [
            ("MODEL.BACKBONE.NAME", SMALL_STEM_FPN),
            ("MODEL.RPN.IN_FEATURES", ["p0", "p1", "p2", "p3", "p4"]),
            ("MODEL.ROI_HEADS.IN_FEATURES", ["p0", "p1", "p2", "p3"]),
        ]
    elif architecture.name in WITHOUT_WEIGHTS or (depth < 50 and width != FULL_WIDTH):
        own_trunk = [("MODEL.BACKBONE.NAME", OWN_FPN)]
    return [
        *own_trunk,
        ("MODEL.RESNETS.DEPTH", depth),
        ("MODEL.RESNETS.STRIDE_IN_1X1", architecture.stride_in_1x1),
        ("MODEL.RESNETS.STEM_OUT_CHANNELS", width),
        ("MODEL.RESNETS.RES2_OUT_CHANNELS", width * design.expansion),
        ("MODEL.RESNETS.NUM_GROUPS", design.groups),
        ("MODEL.RESNETS.WIDTH_PER_GROUP", design.inner_width(width) // design.groups),
    ]


def weights_config_text(
    settings: list[tuple[str, Any]], digest: str, record: dict[str, Any] | None = None
) -> str:
    """The YAML text that Detectron2's `merge_from_file` reads. Comments hold the digest of the weights and,
    if given, the record of their reading."""
    lines = [
        f"# {_STAMP}{digest}",
        *([record_comment(record)] if record else []),
        "# Merge this over a Detectron2 configuration that is to train on the weights beside it.",
        "# MODEL.WEIGHTS is relative to the folder in which Detectron2 is started: change it as needed.",
    ]
    if any(value in (OWN_FPN, SMALL_STEM_FPN) for _, value in settings):
        lines.append(
            "# Detectron2 knows its FPN backbone after "
            "siamtransfer.detection.detectron2.trunk.register_trunks()."
        )
    if any(key == "MODEL.TIMM.NAME" for key, _ in settings):
        lines += [
            "# Detectron2 runs the network of timm after register_trunks() of "
            "siamtransfer.detection.detectron2.trunk, and knows MODEL.TIMM",
            "# in a configuration made by default_settings() of siamtransfer.detection.detectron2.own_keys.",
        ]
    if any(key == "MODEL.TIMM.MAP_NORM" for key, _ in settings):
        lines.append("# MAP_NORM LN: a new layer norm is on each map below the pyramid.")
    tree: dict[str, Any] = {"VERSION": 2}
    for name, value in settings:
        *sections, key = name.split(".")
        section = tree
        for step in sections:
            section = section.setdefault(step, {})
        section[key] = value
    return "\n".join([*lines, *_yaml_lines(tree)]) + "\n"


def _yaml_lines(tree: dict[str, Any], indent: str = "") -> Iterator[str]:
    """Sections as YAML blocks and values as JSON, which is YAML too: strings quoted, a list on one line."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield f"{indent}{key}:"
            yield from _yaml_lines(value, indent + "  ")
        else:
            yield f"{indent}{key}: {json.dumps(value)}"


def read_stamp(path: Path) -> str | None:
    """The digest of the weights that a weights config belongs to; None for a file without a stamp."""
    match = re.search(rf"^# {_STAMP}([0-9a-f]{{64}})$", path.read_text(), re.MULTILINE)
    return match.group(1) if match else None


# Merging OUT.yaml into the configuration of a training.


def merge_weights_config(cfg: Any, layered: LayeredConfig, weights: Path) -> None:
    """Sets in `cfg` what the weights config beside OUT.pkl (`weights`) states, and MODEL.WEIGHTS.

    `layered` is what `cfg` was built from. Where it states a key itself, the values have to agree; only the
    keys of the protocol (frozen stages, norm) keep the value that it states.

    Raises:
        UserError: OUT.yaml was changed, a key contradicts it, or the layout cannot hold the trunk.
    """
    path = weights.with_suffix(".yaml")
    needed = read_layered_config([path], [])
    _check_unchanged(needed, path)
    for key, (value, _) in needed.items():
        if key == "MODEL.WEIGHTS" or (key in layered and key in _PROTOCOL_KEYS):
            continue
        if key in layered and key not in _TRUNK_KEYS and not _equal_settings(layered[key].value, value):
            raise UserError(
                f"{key} is {layered[key].value!r} by {layered[key].where}, and {weights.name} needs "
                f"{value!r} ({path.name} says so); leave the key to the weights"
            )
        if key == "MODEL.BACKBONE.NAME":
            _check_own_trunk_fits(cfg, weights, str(value))
            if layout_of(cfg) == "plain":
                value = {OWN_FPN: PLAIN, SMALL_STEM_FPN: SMALL_STEM_PLAIN}[value]
            elif value == SMALL_STEM_FPN:
                cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES = ["p0", "p1", "p2", "p3"]
                cfg.MODEL.SEM_SEG_HEAD.COMMON_STRIDE = 1
        cfg.merge_from_list([key, value])
    if layout_of(cfg) == "C4" and cfg.MODEL.RESNETS.DEPTH < 50:
        raise _fpn_only(weights, f"a ResNet-{cfg.MODEL.RESNETS.DEPTH}")
    cfg.MODEL.WEIGHTS = str(weights)


def _check_unchanged(needed: LayeredConfig, path: Path) -> None:
    """Raises UserError where OUT.yaml does not set what it set when it was written, but for MODEL.WEIGHTS."""
    recorded = read_recorded(path.with_suffix(".pkl"))
    expected: dict[str, Any] = _BEFORE_RECORDS
    if recorded is not None:
        normalisation = recorded.reading.normalisation.value
        expected = dict(settings_for(recorded.architecture, normalisation, ""))
        del expected["MODEL.WEIGHTS"]
        for key in needed:
            if key not in expected and key != "MODEL.WEIGHTS":
                raise _changed(path, f"sets {key}, which it did not when it was written")
    for key, value in expected.items():
        if key not in needed or not _equal_settings(needed[key].value, value):
            raise _changed(path, f"does not set {key} to {value!r}, which these converted weights need")


def _changed(path: Path, what: str) -> UserError:
    return UserError(
        f"{printable(path)} {what}: the file was changed; convert the checkpoint again, and state other "
        "settings in the configuration of the training"
    )


def _check_own_trunk_fits(cfg: Any, weights: Path, name: str) -> None:
    """A ResNet of trunk.py is plain or an FPN, and a network of timm has a pyramid; RetinaNet builds only
    Detectron2's own trunks."""
    if layout_of(cfg) == "plain" and name in TIMM_LAYOUTS:
        raise UserError(
            f"{weights.name} holds a network of timm, and {cfg.MODEL.META_ARCHITECTURE} is built on a "
            "dilated ResNet; take a configuration with a feature pyramid, such as "
            "configs/detection/voc12-semantic-fpn.yaml"
        )
    if layout_of(cfg) == "C4":
        raise _fpn_only(weights, "a trunk that Detectron2 lacks")
    if cfg.MODEL.META_ARCHITECTURE not in _WITH_OWN_TRUNK:
        raise UserError(
            f"{weights.name} needs a trunk that Detectron2 lacks, and {cfg.MODEL.META_ARCHITECTURE} is only "
            "built on Detectron2's own; take an FPN configuration of R-CNN"
        )


def _fpn_only(weights: Path, contents: str) -> UserError:
    return UserError(
        f"{weights.name} holds {contents}, which the C4 layout with its head of bottleneck blocks cannot "
        "take; choose an FPN configuration, such as configs/detection/coco-fpn-1x.yaml"
    )


def _equal_settings(a: Any, b: Any) -> bool:
    """Equal up to float32's precision; a tuple equals a list."""
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(_equal_settings(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, float | int) and isinstance(b, float | int):
        return math.isclose(a, b, rel_tol=1e-6)
    return a == b
