"""The names and shapes of a ResNet's tensors in torchvision and in Detectron2; no weights.

torchvision's layer1 to layer4 are Detectron2's res2 to res5. Detectron2 has each batch norm inside its
convolution, and calls the projection of a stage's first block `shortcut`. The order, the meaning and the
shapes of the tensors are the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

_STAGES = (("layer1", "res2"), ("layer2", "res3"), ("layer3", "res4"), ("layer4", "res5"))
_CONVOLUTION = ("weight",)
_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


class ModuleNames(NamedTuple):
    """One line of the table: a module's name in both libraries, and its tensors."""

    torchvision: str
    detectron2: str
    tensors: tuple[str, ...]


TABLE = (
    ModuleNames("conv1", "stem.conv1", _CONVOLUTION),
    ModuleNames("bn1", "stem.conv1.norm", _NORM),
    ModuleNames("{stage}.{block}.conv{number}", "{stage}.{block}.conv{number}", _CONVOLUTION),
    ModuleNames("{stage}.{block}.bn{number}", "{stage}.{block}.conv{number}.norm", _NORM),
    ModuleNames("{stage}.{block}.downsample.0", "{stage}.{block}.shortcut", _CONVOLUTION),
    ModuleNames("{stage}.{block}.downsample.1", "{stage}.{block}.shortcut.norm", _NORM),
)
_FIELDS = {"stage": r"(?P<stage>\w+)", "block": r"(?P<block>\d+)", "number": r"(?P<number>[123])"}
_CAFFE2 = {"s": "weight", "b": "bias", "rm": "running_mean", "riv": "running_var"}
LAYOUTS = ("C4", "FPN")
TIMM_TRUNK = "bottom_up."
"""Stands before timm's names of the tensors of a converted network of timm. Detectron2 matches names by their
ends, and `norm.weight` alone would end the name of many a layer."""
Library = Literal["torchvision", "detectron2"]


def to_detectron2(key: str) -> str:
    """`layer1.0.bn1.bias` to `res2.0.conv1.norm.bias`; raises ValueError for a name that no trunk has."""
    return _translate(key, "torchvision", "detectron2")


def to_torchvision(key: str) -> str:
    """`res2.0.conv1.norm.bias` to `layer1.0.bn1.bias`; raises ValueError for a name that no trunk has."""
    return _translate(key, "detectron2", "torchvision")


def from_caffe2(key: str) -> str:
    """`res2_0_branch2a_bn_s` to `layer1.0.bn1.weight`; raises ValueError for a name that no trunk has. The
    projection of a stage is `branch1` there; `rm` and `riv` are the running mean and variance."""
    stem = re.fullmatch(r"(?:conv1_(w)|res_conv1_bn_(s|b|rm|riv))", key)
    if stem:
        return "conv1.weight" if stem[1] else f"bn1.{_CAFFE2[stem[2]]}"
    block = re.fullmatch(r"res([2-5])_(\d+)_branch(1|2[abc])_(?:(w)|bn_(s|b|rm|riv))", key)
    if not block:
        raise ValueError(f"its tensor {key!r} is none of a ResNet's in Caffe2")
    stage, number, branch, weight, norm = block.groups()
    beginning = f"layer{int(stage) - 1}.{number}"
    tensor = "weight" if weight else _CAFFE2[norm]
    if branch == "1":
        return f"{beginning}.downsample.{0 if weight else 1}.{tensor}"
    return f"{beginning}.{'conv' if weight else 'bn'}{'abc'.index(branch[1]) + 1}.{tensor}"


def in_model(key: str, layout: str) -> str:
    """The trunk's tensor `key` in a complete Detectron2 model; in C4 res5 belongs to the RoI heads, in the
    layout plain the trunk is the backbone. Networks of timm, whose keys begin with TIMM_TRUNK, have the
    layout timm, below a feature pyramid, or ViT, a pyramid themselves."""
    if layout in ("timm", "ViT"):
        return f"backbone.bottom_up.pyramid.{key}" if layout == "timm" else f"backbone.pyramid.{key}"
    if layout == "FPN":
        return f"backbone.bottom_up.{key}"
    return f"roi_heads.{key}" if layout == "C4" and key.startswith("res5.") else f"backbone.{key}"


def trunk_shapes(
    blocks: Sequence[int],
    bottleneck: bool,
    width: int,
    groups: int = 1,
    inner_width: int | None = None,
    kernel: int = 7,
) -> dict[str, tuple[int, ...]]:
    """Every tensor of a Detectron2 trunk, by name, with its shape; `kernel` is the size of the stem's.

    `blocks` counts the blocks of res2 to res5, `width` the channels of the stem and `inner_width` those of
    the 3x3 convolutions in res2's bottleneck blocks (`width` unless it is a wide or grouped network).
    """
    shapes = _convolution("stem.conv1", width, 3, kernel)
    channels, inner, out = width, inner_width or width, width * (4 if bottleneck else 1)
    for (_, stage), count in zip(_STAGES, blocks, strict=True):
        for block in range(count):
            name = f"{stage}.{block}"
            if block == 0 and (stage != "res2" or channels != out):
                shapes |= _convolution(f"{name}.shortcut", out, channels, 1)
            if bottleneck:
                shapes |= _convolution(f"{name}.conv1", inner, channels, 1)
                shapes |= _convolution(f"{name}.conv2", inner, inner // groups, 3)
                shapes |= _convolution(f"{name}.conv3", out, inner, 1)
            else:
                shapes |= _convolution(f"{name}.conv1", out, channels, 3)
                shapes |= _convolution(f"{name}.conv2", out, out, 3)
            channels = out
        inner, out = 2 * inner, 2 * out
    return shapes


def _convolution(name: str, out: int, channels: int, kernel: int) -> dict[str, tuple[int, ...]]:
    norm: dict[str, tuple[int, ...]] = {
        f"{name}.norm.{tensor}": () if tensor == "num_batches_tracked" else (out,) for tensor in _NORM
    }
    return {f"{name}.weight": (out, channels, kernel, kernel), **norm}


def _translate(key: str, source: Library, target: Library) -> str:
    module, _, tensor = key.rpartition(".")
    stages = dict(_STAGES) if source == "torchvision" else {new: old for old, new in _STAGES}
    for row in TABLE:
        pattern = getattr(row, source).replace(".", r"\.").format(**_FIELDS)
        match = re.fullmatch(pattern, module)
        if match and tensor in row.tensors:
            words = match.groupdict()
            if words and words["stage"] not in stages:
                continue
            stage = stages[words["stage"]] if words else ""
            return f"{getattr(row, target).format(**{**words, 'stage': stage})}.{tensor}"
    raise ValueError(f"{key!r} is no tensor of a ResNet trunk in {source}")
