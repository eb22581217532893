"""The section of pictures that lie beside records: attention, segmentations, neighbours and the like.

They are made smaller as far as a budget of bytes asks for, so that a folder of many large sheets does not
make a page that no mail takes.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from siamtransfer.reports.section import Section
from siamtransfer.reports.sources import Picture, Sources
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import printable

BUDGET = 2_500_000
"""Bytes of all pictures of a page together; base64 makes a third more of them."""
SIDES = (1400, 1000, 700, 480, 320)
"""Longest sides in pixels; the first by which all pictures fit is taken."""
LARGEST = 100_000_000
"""Pixels of a picture that is read; a larger one is named."""
QUALITY = 80
MEANINGS = {
    "attention": "what the class token attends to, by head",
    "masks": "the patches that hold most of the attention",
    "pca": "the first three principal components of the patches as colours",
    "similarity": "cosine of all patches with one",
    "components": "principal components of the patches",
    "neighbours": "images and their nearest neighbours by features",
    "spectrum": "spread of the features over directions",
    "spectra": "spread of the features over directions",
    "predictions": "images, their labels and what was predicted",
    "strips": "frames of videos with propagated masks",
    "gradients": "what pulls and pushes the embeddings",
    "views": "augmented views of images",
}
"""What is on a picture, by a word in the name of its file."""


@dataclass(frozen=True)
class Shown:
    """A picture in the page.

    Attributes:
        owner, name: the backbone that it is of, and what the file is called.
        alt: what is on it.
        address: its content as a data URI.
        width, height: in pixels, as it lies in the page.
    """

    owner: str
    name: str
    alt: str
    address: str
    width: int
    height: int


def pictures_section(sources: Sources) -> Section | None:
    """The pictures beside the records; None where there are none."""
    if not sources.pictures:
        return None
    shown, left_out = fit(sources.pictures, {backbone.label for backbone in sources.board.backbones})
    return Section(
        "pictures",
        "Pictures",
        "sections/pictures.html",
        {"pictures": shown, "left_out": left_out},
        scripts=("pictures.js",),
        styles=("pictures.css",),
    )


def fit(
    pictures: Sequence[Picture], labels: Collection[str] = (), budget: int = BUDGET
) -> tuple[list[Shown], list[str]]:
    """Pictures as WebP of the largest of SIDES by which all together take at most `budget` bytes, and
    sentences on those that are left out: they cannot be read, or do not fit at the smallest size. `labels`
    are those of the backbones."""
    opened, left_out = [], []
    for picture in pictures:
        try:
            opened.append((picture, _open(picture.path)))
        except UserError as error:
            left_out.append(f"{picture.folder}/{picture.name} is not shown: {error}")
    packed = []
    for side in SIDES:
        packed = [(picture, *_pack(image, side)) for picture, image in opened]
        if sum(len(content) for _, content, _ in packed) <= budget:
            break
    shown, spent = [], 0
    for picture, content, size in packed:
        spent += len(content)
        if spent > budget:
            left_out.append(f"{picture.folder}/{picture.name} is not shown: the page would be too large")
            continue
        address = f"data:image/webp;base64,{base64.b64encode(content).decode()}"
        owner = owner_of(picture, labels)
        shown.append(Shown(owner, picture.name, alternative(picture, owner), address, *size))
    return shown, left_out


def owner_of(picture: Picture, labels: Collection[str]) -> str:
    """The backbone that a picture is of: the nearest folder around it that is called like one, such as
    `dino/attention/masks.png` of a suite; otherwise its folder."""
    around = [printable(folder.name) for folder in picture.path.resolve().parents]
    return next((name for name in around if name in labels), picture.folder)


def alternative(picture: Picture, owner: str) -> str:
    """What is on a picture, in words: whose it is, and its subject where the name tells it."""
    words = picture.name.lower().replace("_", "-").split("-")
    meaning = next((MEANINGS[word] for word in words if word in MEANINGS), None)
    return f"{picture.name} of {owner}" + (f": {meaning}" if meaning else "")


def _open(path: Path) -> Image.Image:
    """The picture in RGB on white, at most SIDES[0] pixels long.

    Raises:
        UserError: it cannot be read, or is too large.
    """
    try:
        with Image.open(path) as image:
            if image.width * image.height > LARGEST:
                raise UserError(f"it has {image.width} x {image.height} pixels, which are too many")
            image.thumbnail((SIDES[0], SIDES[0]), Image.Resampling.LANCZOS)
            if not image.has_transparency_data:
                return image.convert("RGB")
            ground = Image.new("RGBA", image.size, "white")
            ground.alpha_composite(image.convert("RGBA"))
            return ground.convert("RGB")
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise UserError(reason or "it is no whole picture") from error


def _pack(image: Image.Image, side: int) -> tuple[bytes, tuple[int, int]]:
    """The picture as WebP with a longest side of at most `side` pixels, and its size."""
    smaller = image.copy()
    smaller.thumbnail((side, side), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    smaller.save(content, "WEBP", quality=QUALITY)
    return content.getvalue(), smaller.size
