"""Images and depth maps as files, in pairs."""

from __future__ import annotations

import hashlib
from functools import cached_property

import numpy as np
from PIL import Image

from siamtransfer.data.folders import FileImages
from siamtransfer.data.listing import MISSING, PathTable
from siamtransfer.data.pixel_form import PixelForm
from siamtransfer.data.pixel_values import read_pixel_values
from siamtransfer.data.stored_values import refuse_changed_values
from siamtransfer.segmentation.data.mask_orientation import MaskReading, as_image_is_read
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import printable

_WIDE = 2**16


class DepthFiles:
    """Image files with a depth map each (DepthImages); a map's values are divided by `scale` to metres.

    The fingerprint covers relative paths, file sizes and the scale, so a copy of a set has the same.
    """

    def __init__(self, name: str, split: str, images: PathTable, depths: PathTable, scale: float):
        """`images` and `depths` have equal lengths and belong together by position.

        Raises:
            UserError: there is no pair, or a file is missing; names the first.
        """
        self.name, self.split, self.scale = name, split, scale
        self.remarks: list[str] = []
        self._image_paths, self._depth_paths = images, depths
        self.reading = MaskReading()
        self._images, self._depths = FileImages(name, split, images), FileImages(name, split, depths)
        if not len(images):
            raise UserError(f"{name}/{split} below {printable(images.root)} has no images; check data.root")
        for kind, files in (("images", images), ("depth maps", depths)):
            missing = np.flatnonzero(files.sizes() == MISSING)
            if len(missing):
                raise UserError(
                    f"{len(missing)} of the {len(files)} {kind} of {name}/{split} are missing, the first is "
                    f"{printable(files[int(missing[0])])}; unpack the whole set again"
                )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over relative paths and sizes of all files, and the scale."""
        parts = (self._images.fingerprint, self._depths.fingerprint, repr(self.scale))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._images)

    def image(self, index: int) -> np.ndarray:
        """Image `index` as uint8[H, W, 3]; raises UnreadableImage."""
        return self._images.image(index)

    def depth(self, index: int) -> np.ndarray:
        """float32[H, W] in metres, 0 where it is missing, turned as the image is read; raises UserError, see
        `read_depth` and `as_image_is_read`."""
        paths = self._image_paths[index], self._depth_paths[index]
        return as_image_is_read(
            read_depth(paths[1], self.form.max_pixels), self.reading, *paths
        ) / np.float32(self.scale)

    @property
    def form(self) -> PixelForm:
        """How the pixels of the images are read."""
        return self._images.form

    def take_form(self, form: PixelForm, *, orientation_stated: bool) -> None:
        """Gives the images their form, and turns maps with them."""
        self._images.form = form
        self.reading = MaskReading(form.orientation, orientation_stated)

    def path(self, index: int) -> str:
        """The file of image `index`."""
        return self._image_paths[index]

    def describe(self, index: int) -> str:
        """The path of image `index`."""
        return self._images.describe(index)

    def describe_depth(self, index: int) -> str:
        """The path of its depth map."""
        return self._depths.describe(index)

    def part(self, count: int) -> DepthFiles:
        """`count` pairs of these, spread evenly over their order; all of them where there are fewer."""
        if count >= len(self):
            return self
        images, depths = self._image_paths.spread(count), self._depth_paths.spread(count)
        part = DepthFiles(self.name, self.split, images, depths, self.scale)
        part._images.form, part.reading = self._images.form, self.reading
        part.remarks = [*self.remarks, f"{count} of the {len(self)} images of {self.name}/{self.split}"]
        return part


def read_depth(path: str, max_pixels: int | None = None) -> np.ndarray:
    """uint16[H, W]: the values of a depth map of 16 bits as they stand in the file. `max_pixels` is the limit
    of its set, see `PixelForm`.

    Raises:
        UserError: the file cannot be read or decoded, has 8 bits, floating-point numbers or several channels,
            or is of a kind of which the values are not surely those that were stored.
    """
    return read_pixel_values(path, "depth map", _values, max_pixels)


def _values(image: Image.Image, data: bytes, where: str) -> np.ndarray:
    refuse_changed_values(image, data, "depth map", where)
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image)
        if values.size and not 0 <= int(values.min()) <= int(values.max()) < _WIDE:
            raise UserError(f"the depth map {where} holds values outside 0 to 65535; save it with 16 bits")
        return values.astype(np.uint16)
    if image.mode == "F":
        raise UserError(f"the depth map {where} holds floating-point numbers; save millimetres as 16-bit PNG")
    bands = len(image.getbands())
    if bands > 1:
        raise UserError(
            f"the depth map {where} has {bands} channels ({image.mode}), not one number a pixel; it may be a "
            "picture of depths: save the depths themselves, in millimetres, as 16-bit PNG"
        )
    raise UserError(
        f"the depth map {where} has 8 bits, which are 256 depths at most; save millimetres as 16-bit PNG"
    )
