"""Training images with masks: random scale, crop, flip and colour.

Sources: He et al. 2020 (arXiv 1911.05722), appendix, for scales 0.5 to 2, crop and flip; mmsegmentation's
pipeline for the size to which the scale refers, the limit on one class and the colour distortion, whose
numbers are those of SSD (Liu et al. 2016).

Legend: H and W pixels of the image, h and w of the crop.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from siamtransfer.utils.errors import UserError

TRIES = 10  # crops that are drawn to keep the limit on one class; the last one is taken
BRIGHTNESS, CONTRAST, SATURATION = 32.0, (0.5, 1.5), (0.5, 1.5)
HUE = 18 / 180  # of a turn


@dataclass(frozen=True)
class CropRecipe:
    """How a training image is made.

    crop: height and width; scales: the range of the random factor; short_side, long_side: the size to which
    the factor refers, the smaller ratio counts (0 and 0: the image's own size); most_of_one_class: a
    crop of which one class has this fraction of the labelled pixels or more is drawn again; flip: mirror
    half of the images; colour: distort brightness, contrast, saturation and hue.

    Raises:
        UserError: a value is out of range.
    """

    crop: tuple[int, int]
    scales: tuple[float, float] = (0.5, 2.0)
    short_side: int = 0
    long_side: int = 0
    most_of_one_class: float = 1.0
    flip: bool = True
    colour: bool = False

    def __post_init__(self) -> None:
        if len(self.crop) != 2 or any(type(side) is not int or side < 1 for side in self.crop):
            raise UserError(f"INPUT.MASKS.CROP is {self.crop}; give a height and a width in pixels")
        numbers = all(isinstance(factor, int | float) for factor in self.scales)
        if len(self.scales) != 2 or not numbers or not 0 < self.scales[0] <= self.scales[1]:
            raise UserError(f"INPUT.MASKS.SCALES is {self.scales}; give the lowest and the highest factor")
        if min(self.short_side, self.long_side) < 0 or (self.long_side and not self.short_side):
            raise UserError("INPUT.MASKS.SHORT_SIDE and LONG_SIDE are sizes in pixels; 0 is no limit")
        if not 0 < self.most_of_one_class <= 1:
            raise UserError(
                f"INPUT.MASKS.MOST_OF_ONE_CLASS is {self.most_of_one_class}; give a fraction up to 1"
            )


def random_crop(
    image: np.ndarray,
    mask: np.ndarray,
    ignore: int,
    fill: np.ndarray,
    recipe: CropRecipe,
    generator: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """A training image uint8[h,w,3] and its mask[h,w], a function of the arguments alone.

    Beyond the right and the lower edge of a small image stand the colour `fill` uint8[3] and `ignore`.
    """
    size = scaled_size(mask.shape, recipe.short_side, recipe.long_side, generator.uniform(*recipe.scales))
    image, mask = resize_image(image, size), resize_mask(mask, size)
    for _ in range(TRIES):
        top, left = (
            int(generator.integers(0, max(side - crop, 0) + 1))
            for side, crop in zip(size, recipe.crop, strict=True)
        )
        window = np.s_[top : top + recipe.crop[0], left : left + recipe.crop[1]]
        if _varied(mask[window], ignore, recipe.most_of_one_class):
            break
    image, mask = image[window], mask[window]
    if recipe.flip and generator.random() < 0.5:
        image, mask = image[:, ::-1], mask[:, ::-1]
    if recipe.colour:
        image = distort_colour(image, generator)
    padded = np.empty((*recipe.crop, 3), np.uint8)
    padded[:] = fill
    targets = np.full(recipe.crop, ignore, mask.dtype)
    height, width = mask.shape
    padded[:height, :width], targets[:height, :width] = image, mask
    return padded, targets


def scaled_size(
    shape: tuple[int, ...], short_side: int, long_side: int, factor: float = 1.0
) -> tuple[int, int]:
    """Height and width of an image of `shape` brought to the given sides, times `factor`."""
    height, width = shape[:2]
    if short_side:
        factor *= short_side / min(height, width)
    if long_side:
        factor = min(factor, factor * long_side * min(height, width) / (short_side * max(height, width)))
    return max(int(height * factor + 0.5), 1), max(int(width * factor + 0.5), 1)


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8[H,W,3] to `size`, bilinear."""
    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask of any integer type to `size`, each pixel from the one below its centre."""
    if mask.shape == size:
        return mask
    rows, columns = (
        np.minimum(((np.arange(new) + 0.5) * (old / new)).astype(np.int64), old - 1)
        for new, old in zip(size, mask.shape, strict=True)
    )
    return mask[rows[:, None], columns]


def _varied(mask: np.ndarray, ignore: int, most: float) -> bool:
    """Whether a crop has labelled pixels and, where `most` is below 1, no class has as many of them."""
    values, counts = np.unique(mask, return_counts=True)
    counts = counts[values != ignore]
    if not len(counts):
        return False
    return most == 1 or (len(counts) > 1 and counts.max() / counts.sum() < most)


def distort_colour(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """An RGB image with brightness, contrast, saturation and hue changed, each in half of all images."""
    if generator.random() < 0.5:
        image = _clipped(image.astype(np.float32) + generator.uniform(-BRIGHTNESS, BRIGHTNESS))
    contrast_last = generator.random() < 0.5
    if not contrast_last:
        image = _contrast(image, generator)
    saturate, turn = generator.random() < 0.5, generator.random() < 0.5
    factor, angle = generator.uniform(*SATURATION), generator.uniform(-HUE, HUE)
    if saturate or turn:
        hsv = np.asarray(Image.fromarray(np.ascontiguousarray(image)).convert("HSV")).copy()
        if saturate:
            hsv[..., 1] = _clipped(hsv[..., 1] * np.float32(factor))
        if turn:
            hsv[..., 0] += np.uint8(round(angle * 256) % 256)
        image = np.asarray(Image.fromarray(hsv, "HSV").convert("RGB"))
    return _contrast(image, generator) if contrast_last else image


def _contrast(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    if generator.random() < 0.5:
        return _clipped(image * np.float32(generator.uniform(*CONTRAST)))
    return image


def _clipped(values: np.ndarray) -> np.ndarray:
    return values.clip(0, 255).astype(np.uint8)
