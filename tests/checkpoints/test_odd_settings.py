"""Odd files of settings beside weights, and odd settings in them: facts, or one sentence that names the file."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.sentences import is_sentence

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.checkpoints.file_format import Format
from siamtransfer.checkpoints.open_clip_config import activation_beside
from siamtransfer.checkpoints.openmmlab_config import facts_of_config
from siamtransfer.checkpoints.recorded_reading import MARK, read_recorded
from siamtransfer.checkpoints.settings_files import MOST_YAML
from siamtransfer.checkpoints.side_files import facts_beside
from siamtransfer.utils.errors import UserError

pytestmark = pytest.mark.fault

NETWORK = Architecture("resnet18", 64, "imagenet")
ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1.5, 10**400, 2**63, 1e-320, float("nan"), float("inf"), "", "x", "a\nb\x1b[31m"),
    *([], [1], [[1]], {}, {"a": 1}, ["a", "b", "c"], [0, 0, 0], [10**400] * 3, [1e308] * 3, [{}] * 3),
)
PIXELS = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
HUGGING_FACE = {
    "do_resize": True,
    "do_center_crop": True,
    "size": {"shortest_edge": 224},
    "crop_size": {"height": 224, "width": 224},
    "image_mean": PIXELS["mean"],
    "image_std": PIXELS["std"],
    "resample": 3,
}
SETTINGS: dict[str, tuple[str, str, Any]] = {
    "timm": (
        "timm",
        "config.json",
        {
            "architecture": "resnet18",
            "pretrained_cfg": {
                "input_size": [3, 224, 224],
                "crop_pct": 0.95,
                "interpolation": "bicubic",
                **PIXELS,
            },
        },
    ),
    "a ViT": (
        "hugging-face",
        "config.json",
        {"model_type": "vit", "num_attention_heads": 3, "downsample_in_bottleneck": False},
    ),
    "cropped": ("hugging-face", "preprocessor_config.json", HUGGING_FACE),
    "resized": (
        "hugging-face",
        "preprocessor_config.json",
        {"size": {"shortest_edge": 224}, "crop_pct": 0.875, "resample": 3},
    ),
    "Detectron2": (
        "detectron2",
        "config.yaml",
        {
            "MODEL": {
                "PIXEL_MEAN": [103.5, 116.3, 123.7],
                "PIXEL_STD": [1.0, 1.0, 1.0],
                "RESNETS": {"STRIDE_IN_1X1": False, "RES5_DILATION": 1},
            },
            "INPUT": {"FORMAT": "BGR"},
        },
    ),
    "open_clip": (
        "open-clip",
        "open_clip_config.json",
        {
            "model_cfg": {"vision_cfg": {"layers": 12, "width": 768, "head_width": 64, "pool_type": "tok"}},
            "preprocess_cfg": {"size": [224, 224], "resize_mode": "shortest", **PIXELS},
        },
    ),
    "solo-learn": (
        "solo-learn",
        "args.json",
        {"pretrain_method": "simclr", "method": "simclr", "dataset": "cifar10", "data": {"dataset": "x"}},
    ),
}


def places(tree: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value of a tree, of lists to the first."""
    yield place
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from places(value, (*place, key))
    elif isinstance(tree, list):
        yield from places(tree[0], (*place, 0))


def replaced(tree: Any, place: tuple[Any, ...], value: Any) -> Any:
    if not place:
        return value
    tree = holder = copy.deepcopy(tree)
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    return tree


def facts(folder: Path, form: str) -> Any:
    weights = folder / "x.pth"
    read = facts_beside(_form(form), weights, NETWORK)
    return read, activation_beside(weights) if form == "open-clip" else None


def _form(name: str) -> Format:
    from siamtransfer.checkpoints.hugging_face_formats import HUGGING_FACE as NAME
    from siamtransfer.checkpoints.modern_formats import __name__ as _  # noqa: F401

    class _Named:
        def __init__(self, name: str):
            self.name = name

    return _Named(NAME if name == "hugging-face" else name)  # type: ignore[return-value]
