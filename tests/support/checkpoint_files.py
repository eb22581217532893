"""Small checkpoint files of known formats."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.backbones.names import Stem
from support import paths

GOLDEN = paths.GOLDEN


def read_golden(name: str) -> Any:
    return json.loads(gzip.decompress((GOLDEN / name).read_bytes()))


def random_state(name: str, width: int = 64, stem: Stem = "imagenet", seed: int = 0) -> dict[str, Tensor]:
    """A backbone's tensors with values as after training: finite, and batch norms that do something."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}
    for key, shape in Architecture(name, width, stem).shapes().items():
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(17 + len(state))
        elif len(shape) == 4:
            fan_in = shape[1] * shape[2] * shape[3]
            state[key] = torch.randn(shape, generator=generator) * (2 / fan_in) ** 0.5
        elif key.endswith(("running_var", "weight")):
            state[key] = 0.5 + torch.rand(shape, generator=generator)
        else:
            state[key] = 0.2 * torch.randn(shape, generator=generator)
    return state


def timm_file(folder: Path, name: str) -> Path:
    """A file of the tensors of a network of timm, none of which has the value with which timm begins: a layer
    scale near zero would hide its block, and a norm of ones another norm."""
    generator = torch.Generator().manual_seed(0)
    state = Architecture(name).build().state_dict()
    for tensor in state.values():
        if tensor.is_floating_point():
            tensor.add_(0.1 * torch.rand(tensor.shape, generator=generator))
    return save(state, folder, "source.pth")


def save(content: Any, folder: Path, name: str = "x.pth") -> Path:
    """Saves `content` with torch.save; returns the file."""
    torch.save(content, folder / name)
    return folder / name


def same_tensors(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether two dicts have the same keys and equal tensors."""
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def own_checkpoint(
    state: dict[str, Tensor], name: str, width: int | None, stem: str | None, *, declared: bool = False
) -> dict[str, Any]:
    """A checkpoint of this program with a projector and a predictor of two tensors each; without the
    declaration of its keys, as older versions saved it, unless `declared`."""
    heads = {
        "projector.0.weight": torch.ones(4, 8),
        "projector.1.running_mean": torch.zeros(4),
        "predictor.0.weight": torch.ones(2, 4),
        "predictor.3.bias": torch.zeros(4),
    }
    keys = {
        "backbone": "backbone.",
        "target": None,
        "heads": ["predictor", "projector"],
        "evaluated": "backbone",
    }
    return ({"keys": keys} if declared else {}) | {
        "format": "siamtransfer",
        "version": 1,
        "method": "simsiam",
        "model": {**{f"backbone.{key}": tensor for key, tensor in state.items()}, **heads},
        "backbone": {"name": name, "width": width, "stem": stem, "dim": 8},
        "normalisation": {"mean": [0.5, 0.4, 0.3], "std": [0.25, 0.2, 0.125]},
        "progress": {"step": 1200, "epoch": 30},
        "config": {"optim": {"lr": 0.05}},
        "optimizer": {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.05}]},
        "data": {"fingerprint": "abc"},
    }


def simsiam_checkpoint(state: dict[str, Tensor], arch: str) -> dict[str, Any]:
    """A checkpoint as SimSiam's official main_simsiam.py saves it."""
    heads = {
        "module.encoder.fc.0.weight": torch.ones(8, 8),
        "module.encoder.fc.6.bias": torch.ones(8),
        "module.predictor.0.weight": torch.ones(2, 8),
    }
    return {
        "epoch": 100,
        "arch": arch,
        "state_dict": {**{f"module.encoder.{key}": tensor for key, tensor in state.items()}, **heads},
        "optimizer": {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.05}]},
    }


def build_content(description: Any, values: dict[str, float], path: str = "") -> Any:
    """The content of a checkpoint that a golden file describes.

    Each tensor gets one value of its own throughout, which `values` then gives by its path; it is stored
    once and expanded, so that even a ResNet-152 makes a small file.
    """
    if isinstance(description, dict) and set(description) == {"shape", "dtype"}:
        value = float(len(values) % 97 + 1)
        values[path] = value
        return torch.full((), value, dtype=getattr(torch, description["dtype"])).expand(description["shape"])
    if isinstance(description, dict):
        return {
            key: build_content(item, values, f"{path}/{key}".lstrip("/")) for key, item in description.items()
        }
    if isinstance(description, list):
        return [build_content(item, values, path) for item in description]
    return description
