"""Small sets of images with masks in the layouts of the published ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (12, 16)
"""Height and width of every image."""


def write_image(path: Path, index: int, size: tuple[int, int] = SIZE) -> None:
    """A noisy image that depends on its index."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(index).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_mask(path: Path, values: np.ndarray, palette: bool = False) -> None:
    """A mask as a grey PNG of the type of `values`, or with a palette of colours unlike the indices."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    if palette:
        image.putpalette([255 - channel for channel in range(256) for _ in range(3)])
    image.save(path)


def mask_of(values: list[int], size: tuple[int, int] = SIZE) -> np.ndarray:
    """uint8[H,W] (uint16 for large values) in which every value has a stripe of columns."""
    kind = np.uint16 if max(values) > 255 else np.uint8
    columns = np.array(values, kind)[np.arange(size[1]) * len(values) // size[1]]
    return np.repeat(columns[None], size[0], axis=0)


def write_own(root: Path, masks: list[np.ndarray], classes: list[str], split: str = "train") -> None:
    """ROOT/images/SPLIT, ROOT/masks/SPLIT and ROOT/classes.txt."""
    for index, mask in enumerate(masks):
        write_image(root / f"images/{split}/{index}.jpg", index, mask.shape)
        write_mask(root / f"masks/{split}/{index}.png", mask)
    (root / "classes.txt").write_text("\n".join(classes))


def write_voc2012(root: Path, splits: dict[str, list[str]], masks: dict[str, np.ndarray]) -> Path:
    """VOCdevkit/VOC2012 with palette masks; returns that folder."""
    folder = root / "VOCdevkit/VOC2012"
    for index, (name, mask) in enumerate(masks.items()):
        write_image(folder / f"JPEGImages/{name}.jpg", index, mask.shape)
        write_mask(folder / f"SegmentationClass/{name}.png", mask, palette=True)
    (folder / "ImageSets/Segmentation").mkdir(parents=True)
    for split, names in splits.items():
        (folder / f"ImageSets/Segmentation/{split}.txt").write_text("".join(f"{name}\n" for name in names))
    return folder


def write_cityscapes(root: Path, split: str, cities: dict[str, list[np.ndarray]]) -> None:
    """leftImg8bit and gtFine, with files of instance ids and colours beside those of label ids."""
    for city, masks in cities.items():
        for index, mask in enumerate(masks):
            name = f"{city}_{index:06d}_000019"
            write_image(root / f"leftImg8bit/{split}/{city}/{name}_leftImg8bit.png", index, mask.shape)
            truth = root / f"gtFine/{split}/{city}"
            write_mask(truth / f"{name}_gtFine_labelIds.png", mask)
            write_mask(truth / f"{name}_gtFine_instanceIds.png", mask.astype(np.uint16) * 1000)
            write_image(truth / f"{name}_gtFine_color.png", index, mask.shape)


def write_ade20k(root: Path, part: str, masks: list[np.ndarray]) -> None:
    """ADEChallengeData2016 with images/PART and annotations/PART."""
    for index, mask in enumerate(masks):
        name = f"ADE20K_{index:08d}"
        write_image(root / f"ADEChallengeData2016/images/{part}/{name}.jpg", index, mask.shape)
        write_mask(root / f"ADEChallengeData2016/annotations/{part}/{name}.png", mask)


def write_coco_stuff(root: Path, split: str, masks: list[np.ndarray], maps: str = "annotations") -> None:
    """SPLIT2017 and its pixel maps, with files of train ids that another program left."""
    for index, mask in enumerate(masks):
        write_image(root / f"images/{split}2017/{index:012d}.jpg", index, mask.shape)
        write_mask(root / f"{maps}/{split}2017/{index:012d}.png", mask)
        write_mask(root / f"{maps}/{split}2017/{index:012d}_labelTrainIds.png", mask)
