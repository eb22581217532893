"""Fashion Scenes of four channels, of which the fourth alone shows the object.

Red, green and blue are the background of a scene; the fourth channel is the luminance of the scene with its
object, as a camera for another part of the spectrum might see what colours hide. So the class is in the
fourth channel and nowhere else, and a network that drops it cannot be better than chance.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from siamtransfer.data.imageset import ArrayImages
from siamtransfer.data.scenes.export import SceneCounts, complete_folder
from siamtransfer.data.scenes.objects import CLASSES
from siamtransfer.data.scenes.scenes import one_object_scenes

LUMINANCE_WEIGHTS = np.array([77, 150, 29])  # of red, green and blue in 256ths


class HiddenScenes(ArrayImages):
    """`count` one-object scenes of four channels, the object in the fourth alone (an ImageSet).

    Without `count`: 10,000 for train, 2,000 for test.

    Raises:
        UserError: see `FashionScenes`.
    """

    def __init__(self, split: str = "train", size: int = 32, count: int | None = None, seed: int = 0):
        parts = []
        for images, backgrounds in one_object_scenes(split, size, count, seed):
            luminance = (images.astype(np.int32) @ LUMINANCE_WEIGHTS >> 8).astype(np.uint8)
            parts.append(np.concatenate([backgrounds, luminance[..., None]], axis=3))
        pixels = np.concatenate(parts)
        super().__init__("fashion-scenes-4", split, pixels, np.arange(len(pixels)) % len(CLASSES), CLASSES)


def write_channels(folder: str | Path, counts: SceneCounts) -> None:
    """Writes such scenes as PNG files of four channels, SPLIT/CLASS/NNNNNN.png for the splits train and test.

    Programs read the fourth channel as alpha; `--data.channels 4` takes it as one of four.

    Raises:
        UserError: the folder is not empty or cannot be written.
    """
    with complete_folder(folder) as new:
        for split, count in (("train", counts.train), ("test", counts.test)):
            scenes = HiddenScenes(split, counts.size, count, counts.seed)
            for name in CLASSES:
                (new / split / name).mkdir(parents=True)
            assert scenes.labels is not None
            for number, label in enumerate(scenes.labels.tolist()):
                path = new / split / CLASSES[label] / f"{number:06d}.png"
                Image.fromarray(scenes.image(number), "RGBA").save(path)
