"""The statistics that batch norms keep from training, and how far those of given images are from them.

Legend: N crops of S x S pixels, C channels of a batch norm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as pixels

from siamtransfer.backbones.filled import build_filled
from siamtransfer.evaluation.norm_candidates import Candidate
from siamtransfer.features.extract import Images

CHUNK = 16
"""Crops in one forward."""
SAME = 1e-3
"""Two divergences of a batch norm whose logarithms differ by less are those of the same input."""
LEAST, MOST = 1e-6, 1e30
"""Bounds of a divergence; the upper one also stands for what is not finite."""


@dataclass(frozen=True)
class Measurement:
    """How far the statistics of crops under one reading are from those of training.

    Attributes:
        layers: the divergence at each batch norm, in the order of the forward (see `divergence`).
    """

    candidate: Candidate
    layers: tuple[float, ...]

    @property
    def first(self) -> float:
        """The divergence at the first batch norm, which only normalisation, order of channels and the
        geometry of the first convolution move."""
        return self.layers[0]

    @property
    def mean(self) -> float:
        """The mean over all batch norms."""
        return sum(self.layers) / len(self.layers)

    @property
    def score(self) -> float:
        """The geometric mean over all batch norms, by which readings are ranked; a few layers of large
        divergence do not outvote the others."""
        return math.exp(sum(map(math.log, self.layers)) / len(self.layers))

    def factor(self, better: Measurement) -> float:
        """How many times further from the statistics of training this reading is than `better`: the
        geometric mean over the batch norms whose input differs between the two; 1 where none differs."""
        ratios = self._ratios(better)
        return math.exp(sum(ratios) / len(ratios)) if ratios else 1.0

    def agreement(self, better: Measurement) -> float:
        """The fraction of the batch norms whose input differs that are closer under `better`."""
        ratios = self._ratios(better)
        return sum(ratio > 0 for ratio in ratios) / len(ratios) if ratios else 0.0

    def _ratios(self, other: Measurement) -> list[float]:
        """The logarithms of the divergences' ratios at the batch norms whose input differs."""
        pairs = zip(self.layers, other.layers, strict=True)
        ratios = [math.log(here / there) for here, there in pairs]
        return [ratio for ratio in ratios if abs(ratio) > SAME]


def measure(
    candidate: Candidate, state: Mapping[str, Tensor], crops: Tensor, device: torch.device | str = "cpu"
) -> Measurement:
    """The divergence at every batch norm for crops uint8[N,3,S,S], which go through the network of `state`
    in eval mode under one reading."""
    network = build_filled(candidate.architecture, state)
    if candidate.reversed_channels:
        first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
        first.weight.data = first.weight.data.flip(1)
    network.to(device)
    kept = trained_norms(state)
    moments: dict[str, Moments] = {}  # in the order of the forward
    hooks = [
        module.register_forward_pre_hook(_record_input(_name_in_state(name), moments))
        for name, module in network.named_modules()
        if _name_in_state(name) in kept
    ]
    mean, std = (torch.tensor(row, device=device).view(1, -1, 1, 1) * 255 for row in candidate.normalisation)
    with torch.inference_mode():
        for chunk in crops.split(CHUNK):
            network((chunk.to(device).float() - mean) / std)
    for hook in hooks:
        hook.remove()
    return Measurement(
        candidate, tuple(divergence(seen.result(), kept[name]) for name, seen in moments.items())
    )


def _name_in_state(name: str) -> str:
    """The name of a module in a backbone's state, which leaves out the prefix of timm's models."""
    return name.removeprefix("model.")


def divergence(seen: tuple[Tensor, Tensor], kept: tuple[Tensor, Tensor]) -> float:
    """The median over C channels of the Kullback-Leibler divergence between the normal distributions of
    (mean[C], variance[C]) that a batch norm sees and those that it kept from training; between LEAST and
    MOST."""
    (mean, var), (kept_mean, kept_var) = seen, kept
    floor = 1e-12 + 1e-6 * float(kept_var.median())  # dead channels have no variance
    var, kept_var = var + floor, kept_var + floor
    ratio = var / kept_var
    each = 0.5 * (ratio + (mean - kept_mean).square() / kept_var - 1 - ratio.log())
    return min(max(float(each.median()), LEAST), MOST) if bool(torch.isfinite(each).all()) else MOST


def trained_norms(state: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """The mean[C] and variance[C], float64 on the CPU, that each batch norm keeps from a training, by its
    name. Left out are initial statistics (0 and 1), and what remains where they were folded into weights."""
    kept = {}
    for key, tensor in state.items():
        name, _, buffer = key.rpartition(".")
        if buffer == "running_mean":
            mean, var = tensor.double().cpu(), state[f"{name}.running_var"].double().cpu()
            if bool((mean != 0).any()) and bool((var - var.mean()).abs().max() > 1e-6):
                kept[name] = (mean, var)
    return kept


class Moments:
    """Mean and variance of each channel over several batches, in float64 on the CPU."""

    def __init__(self) -> None:
        self.count, self.total, self.squares = 0, torch.zeros(()), torch.zeros(())

    def add(self, x: Tensor) -> None:
        """Takes in x[N, C, ...]."""
        axes = [axis for axis in range(x.ndim) if axis != 1]
        var, mean = (moment.double().cpu() for moment in torch.var_mean(x, axes, correction=0))
        count = x.numel() // x.shape[1]
        self.count += count
        self.total = self.total + count * mean
        self.squares = self.squares + count * (var + mean.square())

    def result(self) -> tuple[Tensor, Tensor]:
        """mean[C] and the unbiased variance[C], as torch's running statistics are."""
        mean = self.total / self.count
        var = (self.squares / self.count - mean.square()).clamp_min(0)
        return mean, var * (self.count / max(self.count - 1, 1))


def _record_input(name: str, moments: dict[str, Moments]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        moments.setdefault(name, Moments()).add(inputs[0])

    return hook


def random_crops(images: Images, count: int, side: int) -> Tensor:
    """`count` crops uint8[count,3,side,side] of images spread over the set, as pretraining cuts them: 20 to
    100 % of the area, flipped half the time. The same set gives the same crops.

    Raises:
        UnreadableImage: an image cannot be read.
    """
    generator = np.random.default_rng(0)
    total = len(images)
    indices = np.arange(count) % total if total < count else np.linspace(0, total - 1, count).astype(int)
    crops = []
    for index in indices:
        image = torch.from_numpy(np.ascontiguousarray(images.image(int(index)))).permute(2, 0, 1)
        height, width = image.shape[1:]
        area = generator.uniform(0.2, 1) * height * width
        ratio = math.exp(generator.uniform(math.log(3 / 4), math.log(4 / 3)))
        h = max(1, min(height, round(math.sqrt(area / ratio))))
        w = max(1, min(width, round(math.sqrt(area * ratio))))
        top, left = int(generator.integers(height - h + 1)), int(generator.integers(width - w + 1))
        crop = pixels.resized_crop(image, top, left, h, w, [side, side], antialias=True)
        crops.append(crop.flip(2) if generator.random() < 0.5 else crop)
    return torch.stack(crops)
