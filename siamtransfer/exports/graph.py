"""The computation of a backbone as torch.export records it: the beginning of ONNX and .pt2 files."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from siamtransfer.backbones.feature_maps import patch_side
from siamtransfer.exports.network import Network, first_line, refusal_of_size
from siamtransfer.exports.proof import Proof, Written, prove
from siamtransfer.utils.errors import UserError

INPUT, OUTPUT = "images", "features"


class _Whole(nn.Module):
    """A backbone, which takes normalised images, or pixels that it normalises itself."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: Network, with_preprocessing: bool):
        super().__init__()
        self.backbone = network.backbone
        self.with_preprocessing = with_preprocessing
        for name, numbers in zip(("mean", "std"), network.normalisation, strict=True):
            self.register_buffer(name, torch.tensor(numbers).reshape(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        if self.with_preprocessing:
            images = (images.float() / 255 - self.mean) / self.std
        features: Tensor = self.backbone(images)
        return features


def record_graph(network: Network, *, dynamic_size: bool, with_preprocessing: bool) -> Any:
    """The ExportedProgram of a network for batches of any size.

    Its input is float32[N, C, H, W] normalised, or with `with_preprocessing` uint8[N, C, H, W]; its output
    float32[N, D]. H and W are those of the network's images, or any with `dynamic_size`.

    Raises:
        UserError: torch.export cannot record it; says why.
    """
    from torch.export import Dim

    if dynamic_size:
        _require_free_size(network)
    side = network.images.size
    pixels = torch.zeros(2, network.channels, side, side, dtype=torch.uint8)  # a batch of 1 would be frozen
    example = pixels if with_preprocessing else network.normalise(pixels)
    dims: dict[int, Any] = {0: Dim("batch", min=1)}
    if dynamic_size:
        dims |= {2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    whole = _Whole(network, with_preprocessing).eval()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            return torch.export.export(whole, (example,), dynamic_shapes={INPUT: dims})
    except Exception as error:  # of torch's compiler: many types, all about the network's code
        cure = ": leave --dynamic-size out" if dynamic_size else ""
        size = "of any size " if dynamic_size else ""
        raise UserError(
            f"{network.read.name} cannot be recorded for images {size}({first_line(error)}){cure}"
        ) from error


def _require_free_size(network: Network) -> None:
    """Raises UserError where the backbone itself takes images of one size only: torch.export could look for
    the reason for many minutes."""
    side, larger = network.images.size, larger_side(network)
    reason = refusal_of_size(network, larger)
    if reason is not None:
        raise UserError(
            f"{network.read.name} takes images of {side} x {side} pixels and not of {larger} ({reason}): "
            "leave --dynamic-size out"
        )


def larger_side(network: Network) -> int:
    """The side of images that are larger than the network's own, by two patches where it has such."""
    return network.images.size + 2 * (patch_side(network.backbone) or 16)


def as_input(network: Network, pixels: Tensor, with_preprocessing: bool) -> Tensor:
    """Pixels uint8[N, C, H, W] as the written network takes them."""
    return pixels if with_preprocessing else network.normalise(pixels)


def prove_sizes(network: Network, written: Written, what: str, *, dynamic_size: bool) -> dict[str, Proof]:
    """The proof at the network's own size of images, and at a larger one where sizes are free.

    Raises:
        UserError: features differ.
    """
    proofs = {"": prove(network, written, what)}
    if dynamic_size:
        larger = larger_side(network)
        proofs[f"{larger}px/"] = prove(network, written, what, larger)
    return proofs
