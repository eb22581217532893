"""Training images of the probe with bins: fixed and random crop, rotation, mirror, colour.

The numbers are those of the Monocular-Depth-Estimation-Toolbox's pipeline for NYU
(configs/_base_/datasets/nyu.py), in which DINOv2's probes were trained.

Legend: H and W pixels of the image, h and w of the crop.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from siamtransfer.utils.errors import UserError

NYU_SIZE = (480, 640)
NYU_ROWS, NYU_COLUMNS = slice(45, 472), slice(43, 608)
"""What is kept of an image of NYU in training: its white border and a margin are cut off."""
NYU_CROP = (416, 544)
DEGREES = 2.5
GAMMA, BRIGHTNESS, COLOUR = (0.9, 1.1), (0.75, 1.25), (0.9, 1.1)


@dataclass(frozen=True)
class DepthRecipe:
    """How a training image is made; `crop` is the height and width of the random crop, None for the whole
    image.

    nyu: first cut off what NYU_ROWS and NYU_COLUMNS leave out of images of NYU_SIZE.
    """

    crop: tuple[int, int] | None = None
    nyu: bool = False
    augment: bool = True

    def apply(
        self, image: np.ndarray, depth: np.ndarray, generator: np.random.Generator, where: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """A training image uint8[h, w, 3] and its depth map float32[h, w].

        Raises:
            UserError: the crop is larger than the image, which `where` names.
        """
        if not self.augment:
            return image, depth
        if self.nyu and depth.shape == NYU_SIZE:
            image, depth = image[NYU_ROWS, NYU_COLUMNS], depth[NYU_ROWS, NYU_COLUMNS]
        if generator.random() < 0.5:
            image, depth = _rotate(image, depth, generator.uniform(-DEGREES, DEGREES))
        if generator.random() < 0.5:
            image, depth = image[:, ::-1], depth[:, ::-1]
        if self.crop is not None:
            if any(side < crop for side, crop in zip(depth.shape, self.crop, strict=True)):
                raise UserError(
                    f"--crop {self.crop[0]} {self.crop[1]} is larger than {where}, of which "
                    f"{depth.shape[1]} x {depth.shape[0]} pixels are used in training; give a smaller crop"
                )
            top, left = (
                int(generator.integers(0, side - crop + 1))
                for side, crop in zip(depth.shape, self.crop, strict=True)
            )
            window = np.s_[top : top + self.crop[0], left : left + self.crop[1]]
            image, depth = image[window], depth[window]
        if generator.random() < 0.5:
            image = _recolour(image, generator)
        return image, depth


def _rotate(image: np.ndarray, depth: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """Both, turned about the centre; what comes in from outside is black and has no depth."""
    turned = Image.fromarray(np.ascontiguousarray(image)).rotate(degrees, Image.Resampling.BILINEAR)
    depths = Image.fromarray(np.ascontiguousarray(depth)).rotate(degrees, Image.Resampling.NEAREST)
    return np.asarray(turned), np.asarray(depths)


def _recolour(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Values from 0 to 255 to a power, times a brightness and a factor for each channel, clipped."""
    gamma, brightness = generator.uniform(*GAMMA), generator.uniform(*BRIGHTNESS)
    factors = (brightness * generator.uniform(*COLOUR, size=3)).astype(np.float32)
    values = np.power(image.astype(np.float32), np.float32(gamma)) * factors
    return values.clip(0, 255).round().astype(np.uint8)
