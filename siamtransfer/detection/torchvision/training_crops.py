"""Training crops with masks for torchvision's segmentation.

Legend: h x w pixels of a crop.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from siamtransfer.checkpoints.normalisation import Normalisation
from siamtransfer.detection.data.joined_masks import JoinedMasks
from siamtransfer.detection.torchvision.segmenter_recipe import SegmenterRecipe
from siamtransfer.segmentation.data.masked_images import MaskedImages
from siamtransfer.segmentation.random_crop import random_crop
from siamtransfer.views.sampler import SampleKey

Crop = tuple[Tensor, Tensor]
"""An image uint8[3,h,w] in RGB and its mask int64[h,w]."""


class TrainingCrops(Dataset[Crop]):
    """Random crops of the images of `sets`, a function of (seed, epoch, index)."""

    def __init__(self, sets: Sequence[MaskedImages], recipe: SegmenterRecipe, normalisation: Normalisation):
        self.images, self.recipe, self.seed = JoinedMasks(sets), recipe.crop, recipe.seed
        self.fill = (255 * np.array(normalisation.mean)).round().clip(0, 255).astype(np.uint8)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: SampleKey) -> Crop:
        epoch, index = key
        image, mask = self.images.pair(index)
        generator = np.random.Generator(np.random.Philox([self.seed, epoch, index]))
        image, mask = random_crop(image, mask, self.images.ignore, self.fill, self.recipe, generator)
        return as_planes(image), torch.from_numpy(mask.astype(np.int64))


def as_planes(image: np.ndarray) -> Tensor:
    """uint8[H,W,3] as uint8[3,H,W]."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
