"""How the authors of a network prepare an image for it, as timm and Hugging Face write it down."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, cast

Interpolation = Literal["bilinear", "bicubic"]
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
    if not (isinstance(share, int | float) and 0 < share <= 1):
        raise ValueError(f"crop_pct is {share!r}")
    _, height, width = size
    side = _side(height, width)
    return (
        None if side is None else Preprocessing(side, int(side / share), cast(Interpolation, interpolation))
    )


def of_hugging_face(config: Mapping[str, Any]) -> Preprocessing | None:
    """By Hugging Face's preprocessor_config.json; None where the settings are not all there, or where images
    are squashed to a square instead of cropped.

    Raises:
        ValueError: they are given and are no such numbers.
    """
    interpolation = _RESAMPLE.get(config.get("resample"))
    shorter = _length(config.get("size"), "shortest_edge")
    if interpolation is None or shorter is None or config.get("do_resize") is False:
        return None
    if config.get("do_center_crop"):
        cropped = config.get("crop_size", shorter)
        side = _side(_length(cropped, "height"), _length(cropped, "width"))
    elif "crop_pct" in config and isinstance(
        config["crop_pct"], float
    ):  # ConvNeXt's: `size` is that of the crop
        side, shorter = shorter, int(shorter / config["crop_pct"])
    else:
        return None
    return None if side is None else Preprocessing(side, max(side, shorter), interpolation)


def _length(value: Any, key: str) -> int | None:
    """A length in pixels, stated alone or under a key."""
    length = value.get(key) if isinstance(value, Mapping) else value
    if length is None:
        return None
    if not isinstance(length, int) or isinstance(length, bool) or length < 1:
        raise ValueError(f"{key} is {length!r}")
    return length


def _side(height: Any, width: Any) -> int | None:
    """The side of a square in pixels; None for another rectangle."""
    if not all(isinstance(side, int) and side > 0 for side in (height, width)):
        raise ValueError(f"an image of {height!r} x {width!r} pixels")
    return int(height) if height == width else None
