"""How the authors of a network prepare an image for it, as timm and Hugging Face write it down."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, cast

from siamtransfer.utils.text import shown

Interpolation = Literal["bilinear", "bicubic"]
_LONGEST = 2**16  # pixels
_RESAMPLE: dict[Any, Interpolation] = {
    2: "bilinear",
    3: "bicubic",
}  # Pillow's numbers, which Hugging Face stores


class Preprocessing(NamedTuple):
    """A resized image and its central square.

    Attributes:
        size: side of the square in pixels.
        resize: length of the shorter side in pixels before the crop.
        interpolation: of the resizing.
    """

    size: int
    resize: int
    interpolation: Interpolation

    def __str__(self) -> str:
        return f"images resized to {self.resize} ({self.interpolation}) and cropped to {self.size} pixels"


def of_timm(config: Mapping[str, Any]) -> Preprocessing | None:
    """By timm's pretrained_cfg: input_size, crop_pct and interpolation; None where they are not all given, or
    where images are squashed to a square instead of cropped.

    Raises:
        ValueError: they are given and are no such numbers.
    """
    size, share, interpolation = (config.get(key) for key in ("input_size", "crop_pct", "interpolation"))
    if size is None or share is None or interpolation not in _RESAMPLE.values():
        return None
    if config.get("crop_mode", "center") not in (None, "center"):
        return None
    if not isinstance(size, list | tuple) or len(size) != 3:
        raise ValueError(f"input_size is {shown(size)}")
    side = _side(size[1], size[2])
    return (
        None
        if side is None
        else Preprocessing(side, _before_crop(side, share), cast(Interpolation, interpolation))
    )


def of_hugging_face(config: Mapping[str, Any]) -> Preprocessing | None:
    """By Hugging Face's preprocessor_config.json; None where the settings are not all there, or where images
    are squashed to a square instead of cropped.

    Raises:
        ValueError: they are given and are no such numbers.
    """
    resample = config.get("resample")
    interpolation = _RESAMPLE.get(resample) if isinstance(resample, int) else None
    shorter = _length(config.get("size"), "shortest_edge")
    if interpolation is None or shorter is None or config.get("do_resize") is False:
        return None
    if config.get("do_center_crop"):
        cropped = config.get("crop_size", shorter)
        side = _side(_length(cropped, "height"), _length(cropped, "width"))
    elif "crop_pct" in config and isinstance(
        config["crop_pct"], float
    ):  # ConvNeXt's: `size` is that of the crop
        side, shorter = shorter, _before_crop(shorter, config["crop_pct"])
    else:
        return None
    return None if side is None else Preprocessing(side, max(side, shorter), interpolation)


def _length(value: Any, key: str) -> int | None:
    """A length in pixels, stated alone or under a key."""
    length = value.get(key) if isinstance(value, Mapping) else value
    if length is None:
        return None
    if not is_length(length):
        raise ValueError(f"{key} is {shown(length)}")
    return int(length)


def is_length(value: Any) -> bool:
    """Whether a value of a file is a length in pixels that an image may have."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _LONGEST


def _before_crop(side: int, share: Any) -> int:
    """The length in pixels of which `side` is that share."""
    if not (isinstance(share, int | float) and 0 < share <= 1 and side / share <= _LONGEST):
        raise ValueError(f"crop_pct is {shown(share)}")
    return int(side / share)


def _side(height: Any, width: Any) -> int | None:
    """The side of a square in pixels; None for another rectangle."""
    if not (is_length(height) and is_length(width)):
        raise ValueError(f"an image of {shown(height)} x {shown(width)} pixels")
    return int(height) if height == width else None
