"""Small sets in the layouts of the revisited Oxford and Paris benchmark and of Copydays."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from siamtransfer.data.registry import open_images

PLACES = 5
"""Scenes that are places, each with a query and four images; as many others answer nothing."""


def scenes(count: int = 2 * PLACES, size: int = 96) -> list[Image.Image]:
    """Rendered scenes."""
    images = open_images("fashion-scenes", split="train", size=size, count=count)
    return [Image.fromarray(images.image(index)) for index in range(count)]


def cut(picture: Image.Image, share: float) -> Image.Image:
    """The middle of a picture, in its size."""
    inner = round(picture.width * share)
    begin = (picture.width - inner) // 2
    return picture.crop((begin, begin, begin + inner, begin + inner)).resize(picture.size)


def write_revisited(root: Path, name: str = "roxford5k") -> dict[str, Any]:
    """Writes DIR/gnd_NAME.pkl and DIR/jpg; returns what the pickle holds.

    Query n is the left two thirds of a larger picture whose box says so. Its images: easy, the scene
    itself and a JPEG of it; hard, its middle; junk, the scene in grey. The last query has no hard image.
    """
    (root / "jpg").mkdir(parents=True)
    names: list[str] = []
    entries: list[dict[str, Any]] = []

    def add(picture: Image.Image, label: str, **options: Any) -> int:
        picture.save(root / "jpg" / f"{label}.jpg", **{"quality": 95} | options)
        names.append(label)
        return len(names) - 1

    pictures = scenes()
    for number, picture in enumerate(pictures[:PLACES]):
        frame = Image.new("RGB", (144, 96), (255, 0, 0))
        frame.paste(picture, (0, 0))
        frame.save(root / "jpg" / f"query_{number}.jpg", quality=95)
        easy = [add(picture, f"place_{number}_a"), add(picture, f"place_{number}_b", quality=30)]
        hard = [add(cut(picture, 0.6), f"place_{number}_c")] if number < PLACES - 1 else []
        junk = [add(picture.convert("L").convert("RGB"), f"place_{number}_d")]
        as_array = np.array if number % 2 else list  # the files of the benchmark may hold either
        kinds = {"easy": as_array(easy), "hard": as_array(hard), "junk": as_array(junk)}
        entries.append({"bbx": [0.0, 0.2, 96.3, 95.8], **kinds})
    for number, picture in enumerate(pictures[PLACES:]):
        add(picture, f"other_{number}")
    content = {
        "gnd": entries,
        "imlist": names,
        "qimlist": [f"query_{number}" for number in range(PLACES)],
    }
    (root / f"gnd_{name}.pkl").write_bytes(pickle.dumps(content))
    return content


def write_copydays(root: Path) -> None:
    """Writes original/, strong/ (two copies of the first place, one of each other), jpegqual/ and crops/."""
    for folder in ("original", "strong", "jpegqual/3", "jpegqual/10", "crops/50"):
        (root / folder).mkdir(parents=True)
    for number, picture in enumerate(scenes(PLACES)):
        group = f"{2000 + number}"
        picture.save(root / "original" / f"{group}00.jpg", quality=95)
        cut(picture, 0.7).save(root / "strong" / f"{group}01.jpg")
        if number == 0:
            cut(picture, 0.8).rotate(15).save(root / "strong" / f"{group}02.jpg")
        picture.save(root / "jpegqual/3" / f"{group}00.jpg", quality=3)
        picture.save(root / "jpegqual/10" / f"{group}00.jpg", quality=10)
        cut(picture, 0.7).save(root / "crops/50" / f"{group}00.jpg")
