"""Many-object Fashion Scenes with the class of the foremost object at every pixel."""

from __future__ import annotations

from functools import cached_property, lru_cache

import numpy as np

from siamtransfer.data.imageset import fingerprint_of_arrays
from siamtransfer.data.scenes.objects import CLASSES
from siamtransfer.data.scenes.scenes import Scene, many_object_scene
from siamtransfer.segmentation.data.masked_images import IGNORE
from siamtransfer.utils.errors import UserError

BACKGROUND = "background"
SIZE, COUNTS = 128, {"train": 1000, "test": 200}
_KEPT_SCENES = 8  # rendered last; image and mask of one index are most often read together
_HASHED_SCENES = 2  # rendered for the fingerprint


class SceneMasks:
    """`count` scenes of `size` pixels a side, rendered when they are read (MaskedImages).

    Class 0 is the background, class c the c-th of the objects' classes. Scene i does not depend on the count.
    No pixel is ignored.

    Raises:
        UserError: there is no such split, or the size or the count is out of range.
    """

    name = "fashion-scenes"
    classes: tuple[str, ...] = (BACKGROUND, *CLASSES)
    ignore = IGNORE

    def __init__(
        self, split: str = "train", size: int | None = None, count: int | None = None, seed: int = 0
    ):
        if split not in COUNTS:
            raise UserError(f"data.split: fashion-scenes has no split {split!r}; choose train or test")
        self.split, self._size, self._seed = split, SIZE if size is None else size, seed
        self._count = COUNTS[split] if count is None else count
        if self._count < 1:
            raise UserError(f"data.count is {count}, but at least one scene is needed; raise it")
        self.remarks: list[str] = []
        self._scene(0)  # refuses a wrong size now

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over count, size, seed, classes, and the pixels of the first scenes."""
        text = f"{self.name} {self.split} {len(self)} {self._size} {self._seed} {self.classes}"
        first = range(min(_HASHED_SCENES, len(self)))
        pixels = [array for index in first for array in (self.image(index), self.mask(index))]
        return fingerprint_of_arrays(*pixels, text=text)

    @property
    def content_fingerprint(self) -> str:
        """The fingerprint, as scenes cannot change."""
        return self.fingerprint

    def __len__(self) -> int:
        return self._count

    def image(self, index: int) -> np.ndarray:
        """Scene `index` as uint8[S,S,3]."""
        return self._scene(index).image.copy()

    def mask(self, index: int) -> np.ndarray:
        """uint8[S,S]: the class of the foremost object, 0 where there is none."""
        scene = self._scene(index)
        mask = np.zeros(scene.image.shape[:2], np.uint8)
        for label, visible in zip(scene.labels, scene.masks, strict=True):
            mask[visible] = label + 1
        return mask

    def path(self, index: int) -> None:
        """None: a scene is no file."""

    def mask_path(self, index: int) -> None:
        """None: a mask is no file."""

    def describe(self, index: int) -> str:
        """For example `fashion-scenes/train[17]`."""
        return f"{self.name}/{self.split}[{index}]"

    def _scene(self, index: int) -> Scene:
        if not 0 <= index < len(self):
            raise IndexError(f"scene {index} of {len(self)}")
        return _rendered(self.split, index, self._size, self._seed)


@lru_cache(_KEPT_SCENES)
def _rendered(split: str, index: int, size: int, seed: int) -> Scene:
    return many_object_scene(split, index, size, seed)
