"""Networks of other libraries beside what is read of their files: the same pixels, the same features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from siamtransfer.checkpoints.options import ReadingOptions
from siamtransfer.checkpoints.read_backbone import ReadBackbone, load_backbone

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
TOLERANCE = 1e-5
Row = Sequence[float]


def as_trained(network: Any, seed: int = 0) -> Any:
    """The network in eval mode with values as after training: batch norms, biases and scales that matter."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.named_buffers():
        if name.endswith("running_mean"):
            tensor.copy_(0.1 * torch.randn(tensor.shape, generator=generator))
        elif name.endswith("running_var"):
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    for parameter in network.parameters():
        if parameter.ndim == 1:
            parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        elif float(parameter.detach().abs().max()) == 0:
            parameter.data.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def sharpened(vit: Any) -> Any:
    """The ViT with attention that is far from uniform, as training makes it, so that heads matter."""
    for name, parameter in vit.named_parameters():
        if name.endswith("qkv.weight"):
            parameter.data.mul_(8)
    return vit


def normalised(images: Tensor, mean: Row, std: Row) -> Tensor:
    """(images - mean) / std for each channel of images[N,3,H,W] in [0, 1]."""
    return (images - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)


def pixels(size: int = 64) -> Tensor:
    """Two RGB images float32[2,3,size,size] in [0, 1], whose channels differ."""
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, 3, size, size, generator=generator) * torch.tensor([1.0, 0.7, 0.4]).view(1, 3, 1, 1)


@torch.no_grad()
def difference(
    file: Path | str,
    original: Callable[[Tensor], Tensor],
    size: int = 64,
    branch: str | None = None,
    **options: Any,
) -> tuple[float, ReadBackbone]:
    """The largest difference between the features of the original library and of our reading of the file,
    relative to the largest feature; and what was read. `original` takes pixels in [0, 1]."""
    backbone, read = load_backbone(file, branch=branch, options=ReadingOptions(**options))
    images = pixels(size)
    ours = backbone(normalised(images, *read.normalisation))
    theirs = original(images)
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max()), read
