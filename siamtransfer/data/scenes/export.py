"""Many-object Fashion Scenes on disk, as a Pascal VOC folder or as COCO files with instance masks.

Sources of the formats: the VOC2007 development kit (Everingham et al., IJCV 2010) and COCO's data format
(cocodataset.org/#format-data). A set is written under a hidden name and renamed when it is complete.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
from PIL import Image

from siamtransfer.data.scenes.objects import CLASSES
from siamtransfer.data.scenes.scenes import Scene, many_object_scene
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import digest_of_file
from siamtransfer.utils.temporary import temporary_folder

JPEG_QUALITY = 95
SUMS = "SHA256SUMS"  # of all other files in a written folder
DIFFICULT_BELOW = 0.5  # visible fraction under which VOC's flag `difficult` is set
TRUNCATED_BELOW = 0.95  # the same for `truncated`: the box no longer spans the whole object
COCO_SPLITS = {"train": "train", "test": "val"}  # of the scenes, as COCO's layout calls them


@dataclass(frozen=True)
class SceneCounts:
    """How many scenes of which size and seed make up a written set.

    train: scenes with objects of the train split; test: the same for test; size: side in pixels.
    """

    train: int = 1000
    test: int = 200
    size: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("train", 4), ("test", 2)):
            if getattr(self, name) < least:
                raise UserError(
                    f"--{name} is {getattr(self, name)} scenes but at least {least} are needed; raise it"
                )


def write_voc(folder: str | Path, counts: SceneCounts) -> None:
    """Writes scenes as one VOC year: `folder` is the folder VOCdevkit/VOC2007.

    JPEGImages/NNNNNN.jpg; Annotations/NNNNNN.xml with boxes counted from 1, both corners included;
    SegmentationObject/NNNNNN.png (pixel k is the k-th object of the xml, 0 the background) and
    SegmentationClass/NNNNNN.png (pixel c is class c of CLASSES, counted from 1); ImageSets/Main and
    ImageSets/Segmentation with train, val (the last tenth of the training scenes), trainval and test.

    Raises:
        UserError: the folder is not empty or cannot be written.
    """
    with complete_folder(folder) as new:
        for name in ("JPEGImages", "Annotations", "SegmentationObject", "SegmentationClass"):
            (new / name).mkdir()
        names: dict[str, list[str]] = {"train": [], "test": []}
        for number, (split, scene) in enumerate(rendered_scenes(counts), 1):
            name = f"{number:06d}"
            names[split].append(name)
            Image.fromarray(scene.image).save(
                new / "JPEGImages" / f"{name}.jpg", quality=JPEG_QUALITY, subsampling=0
            )
            tree = _voc_annotation(f"{name}.jpg", scene, f"Fashion Scenes, seed {counts.seed}")
            tree.write(new / "Annotations" / f"{name}.xml", encoding="utf-8")
            numbers = np.arange(1, len(scene.labels) + 1)
            for kind, values in (("Object", numbers), ("Class", scene.labels + 1)):
                _save_indexed(new / f"Segmentation{kind}" / f"{name}.png", scene.masks, values)
        held_out = max(2, counts.train // 10)
        lists = {
            "train": names["train"][:-held_out],
            "val": names["train"][-held_out:],
            "trainval": names["train"],
            "test": names["test"],
        }
        for task in ("Main", "Segmentation"):
            (new / "ImageSets" / task).mkdir(parents=True)
            for list_name, members in lists.items():
                text = "".join(f"{name}\n" for name in members)
                (new / "ImageSets" / task / f"{list_name}.txt").write_text(text)


def write_coco(folder: str | Path, counts: SceneCounts) -> None:
    """Writes scenes as COCO: train/, val/ (the test scenes) and annotations/instances_{train,val}.json.

    Category ids are 1 to 10 in the order of CLASSES. Masks are uncompressed run lengths (`counts` a list),
    exact to the pixel; pycocotools and Detectron2 compress them on reading. Detectron2 needs
    INPUT.MASK_FORMAT bitmask for them, since its default expects polygons.

    Raises:
        UserError: the folder is not empty or cannot be written.
    """
    with complete_folder(folder) as new:
        (new / "annotations").mkdir()
        files = {coco_split: empty_coco(coco_split, counts.seed) for coco_split in COCO_SPLITS.values()}
        for number, coco_split, scene in save_images(new, counts):
            add_to_coco(files[coco_split], number, scene)
        for coco_split, content in files.items():
            (new / "annotations" / f"instances_{coco_split}.json").write_text(json.dumps(content))


def is_intact(folder: Path) -> bool:
    """Whether a folder holds the files that `write_voc` or `write_coco` wrote, to the byte."""
    try:
        return (folder / SUMS).read_text(encoding="utf-8", errors="replace") == _sums(folder)
    except OSError:
        return False


def _sums(folder: Path) -> str:
    """The SHA-256 of every file in the folder, as `sha256sum` prints them."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / SUMS)
    return "".join(f"{digest_of_file(path)}  {path.relative_to(folder).as_posix()}\n" for path in files)


def run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed RLE of a mask bool[H,W]: lengths of runs down the columns, beginning with zeros."""
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return [0, *lengths] if flat[0] else lengths


def save_images(folder: Path, counts: SceneCounts) -> Iterator[tuple[int, str, Scene]]:
    """Saves every scene as NNNNNN.jpg in train/ or val/ of `folder`; yields number, split of COCO, scene."""
    for coco_split in COCO_SPLITS.values():
        (folder / coco_split).mkdir()
    for number, (split, scene) in enumerate(rendered_scenes(counts), 1):
        path = folder / COCO_SPLITS[split] / f"{number:06d}.jpg"
        Image.fromarray(scene.image).save(path, quality=JPEG_QUALITY, subsampling=0)
        yield number, COCO_SPLITS[split], scene


def rendered_scenes(counts: SceneCounts) -> Iterator[tuple[str, Scene]]:
    """All scenes of a set, each with its split."""
    for split, count in (("train", counts.train), ("test", counts.test)):
        for index in range(count):
            yield split, many_object_scene(split, index, counts.size, counts.seed)


@contextlib.contextmanager
def complete_folder(folder: str | Path) -> Iterator[Path]:
    """A new folder; it gets the name `folder` when the body has ended without an error and all is on disk."""
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists already and is not an empty folder; remove it or choose another")
    with temporary_folder(folder) as new:
        yield new
        (new / SUMS).write_text(_sums(new))
        os.sync()
        new.replace(folder)


def _voc_annotation(file_name: str, scene: Scene, database: str) -> ET.ElementTree:
    height, width, depth = scene.image.shape
    root = ET.Element("annotation")

    def add(parent: ET.Element, tag: str, text: object = "") -> ET.Element:
        child = ET.SubElement(parent, tag)
        child.text = str(text)
        return child

    add(root, "folder", "VOC2007")
    add(root, "filename", file_name)
    add(add(root, "source"), "database", database)
    size = add(root, "size")
    for tag, value in (("width", width), ("height", height), ("depth", depth)):
        add(size, tag, value)
    add(root, "segmented", 1)
    for label, visible, (left, top, right, bottom) in zip(
        scene.labels, scene.visible, scene.boxes, strict=True
    ):
        item = add(root, "object")
        add(item, "name", CLASSES[label])
        add(item, "pose", "Unspecified")
        add(item, "truncated", int(visible < TRUNCATED_BELOW))
        add(item, "difficult", int(visible < DIFFICULT_BELOW))
        box = add(item, "bndbox")
        for tag, value in (("xmin", left + 1), ("ymin", top + 1), ("xmax", right), ("ymax", bottom)):
            add(box, tag, value)
    ET.indent(root)
    return ET.ElementTree(root)


def _save_indexed(path: Path, masks: np.ndarray, values: np.ndarray) -> None:
    """Saves a palette PNG: values[k] where masks[k], 0 elsewhere, in VOC's colours."""
    pixels = np.zeros(masks.shape[1:], np.uint8)
    for mask, value in zip(masks, values, strict=True):
        pixels[mask] = value
    image = Image.fromarray(pixels)
    image.putpalette(voc_palette())
    image.save(path)


def voc_palette() -> list[int]:
    """VOC's 256 colours: bits 0, 3, 6 of an index are red's highest bits, 1, 4, 7 green's, 2, 5 blue's."""
    return [
        sum((index >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3))
        for index in range(256)
        for channel in range(3)
    ]


def empty_coco(coco_split: str, seed: int) -> dict[str, Any]:
    """A file of COCO's instances without images."""
    return {
        "info": {"description": f"Fashion Scenes, {coco_split}, seed {seed}"},
        "licenses": [],
        "images": [],
        "annotations": [],
        "categories": [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)],
    }


def add_to_coco(content: dict, image_id: int, scene: Scene) -> None:
    """Appends the image and its objects to a file of COCO's instances."""
    height, width = scene.image.shape[:2]
    content["images"].append(
        {"id": image_id, "file_name": f"{image_id:06d}.jpg", "height": height, "width": width}
    )
    for label, mask, (left, top, right, bottom) in zip(
        scene.labels, scene.masks, scene.boxes.tolist(), strict=True
    ):
        content["annotations"].append(
            {
                "id": len(content["annotations"]) + 1,
                "image_id": image_id,
                "category_id": int(label) + 1,
                "bbox": [left, top, right - left, bottom - top],
                "area": int(mask.sum()),
                "iscrowd": 0,
                "segmentation": {"size": [height, width], "counts": run_lengths(mask)},
            }
        )
