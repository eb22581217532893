"""The Detectron2 settings that belong to converted weights: a file to merge over any C4 or FPN configuration.

Detectron2's defaults are for weights of 2017 (BGR, no division, the stride in the 1x1 convolution); used
with a torchvision trunk they cost several AP without any message. The file beside the weights says what
these weights need, and its stamp says which weights those are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from siamtransfer.backbones.architecture import DESIGNS, FULL_WIDTH, TIMM, Architecture
from siamtransfer.checkpoints.detectron2_keys import trunk_shapes
from siamtransfer.checkpoints.formats import Normalisation
from siamtransfer.detection.detectron2.trunk import OWN_FPN, SMALL_STEM_FPN
from siamtransfer.utils.errors import UserError

_STAMP = "siamtransfer-weights: sha256:"


def refuse_inconvertible(architecture: Architecture, path: str) -> None:
    """Raises UserError with the reason when Detectron2 has no trunk for these weights."""
    if architecture.name not in DESIGNS:
        raise UserError(
            f"{path} holds {architecture.name.removeprefix(TIMM)} from timm, and Detectron2 has no such "
            "trunk; convert a torchvision ResNet"
        )
    if architecture.stem == "small-pad2":
        raise UserError(
            f"{path} holds solo-learn's stem for small images, whose padding of 2 no Detectron2 trunk has: "
            "its features would be others; convert a backbone with another stem"
        )


def why_no_c4(architecture: Architecture) -> str | None:
    """Why Detectron2's C4 layout cannot hold the trunk, or None when it can; FPN holds all."""
    if not DESIGNS[architecture.name].bottleneck:
        return "the head of Detectron2's C4 layout is made of bottleneck blocks"
    if architecture.stem == "small":
        return "Detectron2's C4 layout has no stem for small images"
    return None


def layouts(architecture: Architecture) -> tuple[str, ...]:
    """The Detectron2 layouts that can hold the trunk."""
    return ("FPN",) if why_no_c4(architecture) else ("C4", "FPN")


def expected_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """The tensors that Detectron2's trunk of this architecture has, by its names."""
    design, width = DESIGNS[architecture.name], architecture.width or FULL_WIDTH
    kernel = 3 if architecture.stem == "small" else 7
    inner = design.inner_width(width)
    return trunk_shapes(design.blocks, design.bottleneck, width, design.groups, inner, kernel)


def settings_for(
    architecture: Architecture, normalisation: Normalisation, weights: str
) -> list[tuple[str, Any]]:
    """The settings by their full names, in the order in which they are written."""
    design, width = DESIGNS[architecture.name], architecture.width or FULL_WIDTH
    plain = {(d.block, d.blocks): name for name, d in reversed(DESIGNS.items()) if name.startswith("resnet")}
    depth = int(plain[design.block, design.blocks].removeprefix("resnet"))
    special: list[tuple[str, Any]] = []
    if architecture.stem == "small":
        special = [
            ("MODEL.BACKBONE.NAME", SMALL_STEM_FPN),
            ("MODEL.RPN.IN_FEATURES", ["p0", "p1", "p2", "p3", "p4"]),
            ("MODEL.ROI_HEADS.IN_FEATURES", ["p0", "p1", "p2", "p3"]),
        ]
    elif depth < 50 and width != FULL_WIDTH:
        special = [("MODEL.BACKBONE.NAME", OWN_FPN)]
    return [
        ("MODEL.WEIGHTS", weights),
        ("MODEL.PIXEL_MEAN", [255 * value for value in normalisation.mean]),
        ("MODEL.PIXEL_STD", [255 * value for value in normalisation.std]),
        *special,
        ("MODEL.BACKBONE.FREEZE_AT", 0),
        ("MODEL.RESNETS.DEPTH", depth),
        ("MODEL.RESNETS.NORM", "naiveSyncBN"),
        ("MODEL.RESNETS.STRIDE_IN_1X1", False),
        ("MODEL.RESNETS.STEM_OUT_CHANNELS", width),
        ("MODEL.RESNETS.RES2_OUT_CHANNELS", width * design.block.expansion),
        ("MODEL.RESNETS.NUM_GROUPS", design.groups),
        ("MODEL.RESNETS.WIDTH_PER_GROUP", design.inner_width(width) // design.groups),
        ("INPUT.FORMAT", "RGB"),
    ]


def overlay_text(settings: list[tuple[str, Any]], digest: str) -> str:
    """The YAML file that Detectron2's `merge_from_file` reads, stamped with the digest of the weights."""
    lines = [
        f"# {_STAMP}{digest}",
        "# Merge this over a Detectron2 configuration that is to train on the weights beside it.",
        "# MODEL.WEIGHTS is relative to the folder in which Detectron2 is started: change it as needed.",
    ]
    if any(value in (OWN_FPN, SMALL_STEM_FPN) for _, value in settings):
        lines.append(
            "# Detectron2 knows its FPN backbone after "
            "siamtransfer.detection.detectron2.trunk.register_trunks()."
        )
    tree: dict[str, Any] = {"VERSION": 2}
    for name, value in settings:
        *sections, key = name.split(".")
        section = tree
        for part in sections:
            section = section.setdefault(part, {})
        section[key] = value
    return "\n".join([*lines, *_yaml(tree)]) + "\n"


def _yaml(tree: dict[str, Any], indent: str = "") -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield f"{indent}{key}:"
            yield from _yaml(value, indent + "  ")
        else:
            yield f"{indent}{key}: {json.dumps(value)}"  # JSON's scalars and lists are YAML's


def read_stamp(path: Path) -> str | None:
    """The digest of the weights that an overlay belongs to; None for a file without a stamp."""
    found = re.search(rf"^# {_STAMP}([0-9a-f]{{64}})$", path.read_text(), re.MULTILINE)
    return found.group(1) if found else None
