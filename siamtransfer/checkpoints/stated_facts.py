"""What a checkpoint file itself states about its network: pixel buffers, settings, authors.

Every function returns facts with their sources (see facts.py); nothing here is assumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.checkpoints.facts import Facts, facts_from, join, kind_of
from siamtransfer.checkpoints.file_format import TORCHVISIONS, USUAL_PATHS, Format
from siamtransfer.checkpoints.normalisation import CAFFE, IMAGENET, NAMES, from_pixels, numbers_of
from siamtransfer.checkpoints.openmmlab_config import facts_of_config
from siamtransfer.checkpoints.pickles import as_plain
from siamtransfer.checkpoints.reading import ASSUMED, Fact
from siamtransfer.checkpoints.wrappers import without_wrappers
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import shown

# Converters to Detectron2's .pkl whose configurations set torchvision's pixels and stride.
_CONVERTERS = ("torchvision", "MOCO", "OpenSelfSup")
_SETTINGS = ("hyper_parameters", "args", "cfg", "config")
SOLO_LEARN_METHODS = frozenset(
    {
        *(
            "all4one",
            "barlow_twins",
            "byol",
            "deepclusterv2",
            "dino",
            "linear",
            "mae",
            "mocov2plus",
            "mocov3",
        ),
        *("nnbyol", "nnclr", "nnsiam", "ressl", "simclr", "simsiam", "supcon", "swav", "vibcreg", "vicreg"),
        "wmse",
    }
)


def facts_of_content(form: Format, content: Any, architecture: Architecture) -> Facts:
    """What the content of a file states about a network of that architecture.

    Raises:
        UserError: it states a network that is not read; the rest of a sentence that begins with the file's
            name.
    """
    if not isinstance(content, dict):
        return {}
    facts: Facts = {}
    if form.name == "detectron2":
        facts = join(_pixel_facts(content), _author_facts(content))
    if form.name == "caffe2":
        facts = facts_from("Detectron2's configurations of that network", _caffe2_facts(architecture))
    if form.name in ("mmselfsup", "openmmlab", "prefixed", "torchvision"):
        facts = join(facts, _openmmlab_facts(content))
    for entry in _SETTINGS:
        settings = as_plain(content.get(entry))
        if isinstance(settings, dict) and form.name.startswith("solo-learn"):
            facts = join(facts, facts_of_solo_learn(settings, architecture, f"{entry} in the file"))
    if set(content) == _PROBE and content["arch"] in ("vit_small", "vit_base"):
        facts = join(facts, facts_from("the entries of MoCo v3's main_lincls.py in the file", _MOCO_V3))
    return facts


def _caffe2_facts(architecture: Architecture) -> dict[str, Any]:
    """Of Caffe2's networks in Detectron2's model zoo those by MSRA have a std of 1 and their stride in the
    1x1 convolutions, and ResNeXt-101 32x8d by Facebook neither."""
    if architecture.name == "resnext101_32x8d":
        return {"normalisation": IMAGENET, "stride_in_1x1": False}
    if architecture.name in ("resnet50", "resnet101", "resnet152"):
        return {"normalisation": CAFFE, "stride_in_1x1": True}
    raise UserError(f"holds a {architecture.name} of Caffe2, of which Detectron2 has no weights")


_MOCO_V3: dict[str, Any] = {
    "heads": 12,
    "positions": "antialiased",
    "normalisation": IMAGENET,
    "channels": "rgb",
}
# MoCo v3's linear probe saves the entries of PyTorch's ImageNet example, and calls its ViTs vit_small and
# vit_base. DINO's probe saves the classifier alone; names of timm, DeiT and torchvision are longer.
_PROBE = {"epoch", "arch", "state_dict", "best_acc1", "optimizer"}


def facts_of_positions(state: Mapping[str, Tensor], architecture: Architecture) -> Facts:
    """MoCo v3's ViTs have fixed position embeddings: sines and cosines of the row in the first half of the
    channels, of the column in the second, and zeros for the class token. MAE's have the halves exchanged, and
    other methods learn them. A ViT with these embeddings therefore has MoCo v3's 12 heads.
    """
    positions = state.get("pos_embed")
    if positions is None or architecture.name not in ("timm:vit_small_patch16_224", "vit_small_moco_v3"):
        return {}
    side, quarter = 14, positions.shape[-1] // 4
    omega = 1 / 10000 ** (torch.arange(quarter, dtype=torch.float64) / quarter)
    angles = torch.arange(side, dtype=torch.float64)[:, None] * omega
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # [side, half of the channels]
    rows = waves.repeat_interleave(side, 0)
    expected = torch.cat([rows, waves.repeat(side, 1)], dim=1)
    expected = torch.cat([torch.zeros(1, 4 * quarter, dtype=torch.float64), expected])
    if positions.shape[1:] == expected.shape and torch.allclose(positions[0].double(), expected, atol=1e-3):
        return facts_from("MoCo v3's fixed position embedding in the file", _MOCO_V3)
    return {}


def facts_of_solo_learn(settings: Mapping[str, Any], architecture: Architecture, source: str) -> Facts:
    """The facts of solo-learn's networks by the settings of a run; none for another program's settings."""
    method = settings.get("pretrain_method", settings.get("method"))
    if not isinstance(method, str) or method not in SOLO_LEARN_METHODS:
        return {}
    data = settings.get("data")
    dataset = settings.get("dataset", data.get("dataset") if isinstance(data, Mapping) else None)
    values: dict[str, Any] = {"channels": "rgb"}
    kind = kind_of(architecture)
    if kind in ("7x7", "3x3"):
        values |= {"stem": "small-pad2" if kind == "3x3" else "imagenet", "output_stride": 32}
        values["stride_in_1x1"] = False
    if kind == "vit":
        values["positions"] = "antialiased"  # its ViTs are timm's
    if kind == "vit" and method != "linear":
        usual = architecture.attention_heads or 0
        values["heads"] = max(12, usual) if method in ("mocov3", "mae") else usual
    if dataset in ("cifar10", "cifar100", "stl10"):
        values["normalisation"] = NAMES[dataset]
    elif dataset in ("imagenet", "imagenet100"):
        values["normalisation"] = IMAGENET
    known = f", {shown(dataset)[1:-1]}" if isinstance(dataset, str) and dataset else ""
    return facts_from(f"{source} (solo-learn, {method}{known})", values)


def facts_of_pixels(
    mean: Any, std: Any, order: str | None, source: str, *, scale: float = 255.0
) -> tuple[Facts, bool]:
    """Normalisation and order of the channels by Detectron2's pixel_mean and pixel_std, and whether they are
    those of MSRA's weights. Without an order the means tell it: blue is the darkest channel of photographs.

    Raises:
        ValueError: they are not three numbers and three positive ones.
    """
    mean, std = numbers_of(mean), numbers_of(std)
    if order is None and len(mean) == 3 and mean[0] != mean[2]:
        order = "BGR" if mean[0] < mean[2] else "RGB"
    facts: Facts = {}
    if order in ("BGR", "RGB"):
        facts["channels"] = Fact(order.lower(), source)
    if order is not None or (len(set(mean)) == 1 and len(set(std)) == 1):
        facts["normalisation"] = Fact(from_pixels(mean, std, scale, bgr=order == "BGR"), source)
    return facts, set(std) == {1.0} and max(mean) > 1


def _pixel_facts(content: Mapping[str, Any]) -> Facts:
    buffers: dict[str, list[float]] = {}
    for path in USUAL_PATHS:
        tensors: Any = content
        for entry in path:
            tensors = tensors.get(entry) if isinstance(tensors, dict) else None
        for key, value in tensors.items() if isinstance(tensors, dict) else ():
            name = without_wrappers(str(key)).removeprefix("model.")
            if name in ("pixel_mean", "pixel_std") and isinstance(value, Tensor):
                buffers[name] = value.double().flatten().tolist()
    if set(buffers) != {"pixel_mean", "pixel_std"}:
        return {}
    source = "pixel_mean and pixel_std in the file"
    try:
        facts, msra = facts_of_pixels(
            _short(buffers["pixel_mean"]), _short(buffers["pixel_std"]), None, source
        )
    except ValueError as error:
        raise UserError(f"has a pixel_mean or pixel_std that is not understood: {error}") from error
    if "normalisation" in facts and (msra or min(buffers["pixel_std"]) > 1):
        # MSRA's weights come with a std of 1, all others with that of ImageNet; but a user may mix settings.
        facts["stride_in_1x1"] = Fact(msra, ASSUMED)
    return facts


def _short(numbers: list[float]) -> list[float]:
    """float32 numbers as they were written in a configuration."""
    return [float(f"{number:.7g}") for number in numbers]


def _author_facts(content: Mapping[str, Any]) -> Facts:
    author = content.get("__author__")
    if author in _CONVERTERS:
        source = f"the configuration that belongs to files of __author__ {author!r}"
        return facts_from(source, TORCHVISIONS)
    if author == "siamtransfer":
        return facts_from("__author__ 'siamtransfer' in the file", {"channels": "rgb"})
    return {}


def _openmmlab_facts(content: Mapping[str, Any]) -> Facts:
    meta = content.get("meta")
    for entry in ("config", "cfg"):
        text = meta.get(entry) if isinstance(meta, dict) else None
        if isinstance(text, str):
            try:
                return facts_from(f"meta.{entry} in the file", facts_of_config(text))
            except (ValueError, TypeError) as error:
                raise UserError(f"cannot be read: {error}") from error
    return {}
