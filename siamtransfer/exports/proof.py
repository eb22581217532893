"""The proof of an export: what was written gives the features that the backbone here gives.

The same images go through both: rendered scenes and uniform noise, in batches of 1, 2 and 5, so that a batch
size that was frozen into a file shows. The written network is one that was read back from the disk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from siamtransfer.data.scenes.scenes import FashionScenes
from siamtransfer.exports.network import Network
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say

TOLERANCE = 1e-4
"""The largest difference, in units of the largest feature."""
BATCHES = (1, 2, 5)
_TELLING = 100
_LARGEST_SCENE = 1024


@dataclass(frozen=True)
class Proof:
    """How far apart the features of both networks are.

    Attributes:
        absolute: max|a - b| over all images and features; b are the backbone's.
        relative: absolute / max|b|.
        spread: the largest range of a feature over the images / max|b|: a difference between two images. A
            wrong network can hide behind features that hardly depend on the image, and this shows it.
        images: how many there were.
    """

    absolute: float
    relative: float
    spread: float
    images: int

    def metrics(self) -> dict[str, float]:
        """By the names that they have in a record."""
        return {
            "proof/max_absolute_difference": self.absolute,
            "proof/max_relative_difference": self.relative,
            "proof/spread_over_images": self.spread,
            "proof/images": float(self.images),
        }


def proof_pixels(network: Network, side: int | None = None) -> list[Tensor]:
    """Batches uint8[n, C, S, S] for n of BATCHES, half of the images scenes and half noise; S is `side`, or
    the side of the network's images."""
    count, side = sum(BATCHES), side or network.images.size
    drawn = min(max(side, 16), _LARGEST_SCENE)
    scenes = torch.from_numpy(FashionScenes("test", size=drawn, count=count).pixels).permute(0, 3, 1, 2)
    if drawn != side:
        scenes = torch.nn.functional.interpolate(scenes, size=(side, side), mode="bilinear", antialias=True)
    pixels = scenes[:, [channel % 3 for channel in range(network.channels)]].contiguous()
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, pixels.shape, generator=generator, dtype=torch.uint8)
    pixels[::2] = noise[::2]
    return list(pixels.split(BATCHES))


Written = Callable[[list[Tensor]], list[Tensor]]
"""A network that was read back: from batches of pixels uint8[n, C, S, S] to their features [n, D]."""


def prove(network: Network, written: Written, what: str, side: int | None = None) -> Proof:
    """Compares the features of `written` with the backbone's; prints the result.

    Args:
        network: the backbone.
        written: the network that was written.
        what: the written network in words.
        side: S, where it is not the network's own.

    Raises:
        UserError: they differ by more than TOLERANCE; the file is then not to be kept.
    """
    batches = proof_pixels(network, side)
    with torch.inference_mode():
        expected = torch.cat([network.backbone(network.normalise(pixels)) for pixels in batches])
    parts = written(batches)
    shapes = [tuple(part.shape) for part in parts]
    if shapes != [(count, expected.shape[1]) for count in BATCHES]:
        raise UserError(f"{what} gives features of other shapes, {shapes}: nothing was written")
    found = torch.cat([part.to(expected.dtype) for part in parts])
    largest = expected.abs().max().clamp_min(torch.finfo(expected.dtype).tiny)
    absolute = (found - expected).abs().max()
    spread = (expected.amax(dim=0) - expected.amin(dim=0)).max() / largest
    proof = Proof(float(absolute), float(absolute / largest), float(spread), len(expected))
    at = f" at {side} pixels" if side else ""
    if not proof.relative <= TOLERANCE:  # also for NaN
        raise UserError(
            f"{what} gives other features{at} than the backbone: they differ by {proof.relative:.1e} of the "
            f"largest one, more than {TOLERANCE:g}: nothing was written"
        )
    say(
        f"proof: {what} gives the backbone's features{at}; the largest difference over {proof.images} images "
        f"is {proof.absolute:.1e}, {proof.relative:.1e} of the largest feature"
    )
    if proof.spread < _TELLING * TOLERANCE:
        say(
            f"note: the features of these images differ by no more than {proof.spread:.1e} of the largest "
            "one, so the proof says little: the backbone hardly looks at the image"
        )
    return proof
