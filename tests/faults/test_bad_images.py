"""Fault 13, bad images in a folder: pretraining replaces, counts and names them; evaluation stops at one.

Fault 10, images that change between runs: refused with the counts.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from siamtransfer.data import ImageSet, UnreadableImage, open_images
from siamtransfer.data.imageset import require_same_images
from siamtransfer.data.readers import ReplacingReader
from siamtransfer.data.unreadable import NothingReadable, UnreadableImages, read_or_replace
from siamtransfer.features.extract import Transform, extract_pixels
from siamtransfer.utils.errors import UserError
from siamtransfer.views.dataset import ViewBatch, ViewSet, identity_collate
from siamtransfer.views.recipes import recipe
from siamtransfer.views.sampler import StepSampler

SIDE = 24


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(index: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(index).integers(0, 256, (SIDE, SIDE + 3, 3), dtype=np.uint8))


def bomb() -> bytes:
    """A PNG that claims 60,000 x 60,000 pixels and has none."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


UNUSUAL = {
    "cmyk.jpg": encode(picture(1).convert("CMYK"), "JPEG"),
    "16-bit.png": encode(
        Image.fromarray(np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE) * 100), "PNG"
    ),
    "palette.png": encode(picture(2).quantize(9), "PNG", transparency=0),
    "grey alpha.png": encode(picture(3).convert("LA"), "PNG"),
    "one bit.png": encode(picture(4).convert("1"), "PNG"),
    "one pixel.png": encode(picture(5).resize((1, 1)), "PNG"),
    "png called.JPEG": encode(picture(6), "PNG"),
    "moving.webp": encode(picture(7), "WEBP", save_all=True, append_images=[picture(8)]),
}
BAD = {
    "bad/bomb.png": bomb(),
    "bad/empty.jpg": b"",
    "bad/page.jpg": b"<html>404 Not Found</html>",
    "bad/cut.jpg": encode(picture(9), "JPEG")[:-60],
    "bad/cut.png": encode(picture(10), "PNG")[:-60],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """20 good images, 8 unusual ones, 5 bad files and a link that leads nowhere."""
    (tmp_path / "bad").mkdir()
    for name, data in {**UNUSUAL, **BAD}.items():
        (tmp_path / name).write_bytes(data)
    for index in range(20):
        (tmp_path / f"{index:02d}.jpg").write_bytes(encode(picture(index), "JPEG"))
    (tmp_path / "bad/link.jpg").symlink_to(tmp_path / "gone.jpg")
    return tmp_path


def epoch(images: ImageSet, workers: int) -> list[ViewBatch]:
    """All batches of one epoch, as pretraining gets them."""
    views = ViewSet(ReplacingReader(images), recipe("simsiam", size=16), seed=0, length=len(images))
    order = StepSampler(len(images), batch=2, steps=len(images) // 2, seed=0)
    return list(DataLoader(views, batch_sampler=order, num_workers=workers, collate_fn=identity_collate))


def test_pretraining_replaces_alike_with_any_number_of_workers_and_names_every_bad_file(folder: Path) -> None:
    images = open_images("flat", root=folder)
    assert len(images) == 34
    alone, shared = epoch(images, 0), epoch(images, 2)
    for one, other in zip(alone, shared, strict=True):
        assert all(torch.equal(mine, yours) for mine, yours in zip(one.crops, other.crops, strict=True))
        assert torch.equal(one.index, other.index) and one.unreadable == other.unreadable
    tally = UnreadableImages(len(images), 0.5)
    for batch in alone:
        for where, why in batch.unreadable:
            tally.add(where, why)
    assert set(tally.reasons) == {str(folder / name) for name in [*BAD, "bad/link.jpg"]}
    assert tally.summary().startswith("6 of 34 images (17.65%) could not be read")


def test_unusual_images_are_read_and_not_replaced(folder: Path) -> None:
    images = open_images("flat", root=folder)
    places = {images.describe(index): index for index in range(len(images))}
    for name in UNUSUAL:
        index = places[str(folder / name)]
        image, used, failures = read_or_replace(images, index)
        assert (used, failures) == (index, []) and image.dtype == np.uint8 and image.shape[2] == 3


def test_pretraining_stops_above_the_stated_share(folder: Path) -> None:
    images = open_images("flat", root=folder)
    tally = UnreadableImages(len(images), 0.1)  # 3 of 34 are allowed
    with pytest.raises(UserError) as caught:
        for batch in epoch(images, 0):
            for where, why in batch.unreadable:
                tally.add(where, why)
    assert tally.count == 4
    for part in ("4 of 34 images (11.76%)", str(folder / "bad"), "data.max_unreadable = 0.1"):
        assert part in str(caught.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_folder_without_one_readable_image_ends_the_run(workers: int, tmp_path: Path) -> None:
    for index in range(40):
        (tmp_path / f"{index:02d}.jpg").write_bytes(b"not an image")
    with pytest.raises(NothingReadable) as caught:
        epoch(open_images("flat", root=tmp_path), workers)
    assert re.match(r"\S+\.jpg and the 15 images tried in its place could all not be read", str(caught.value))


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_stops_and_names_the_file(workers: int, folder: Path) -> None:
    images = open_images("flat", root=folder)
    with pytest.raises(UnreadableImage) as caught:
        extract_pixels(images, Transform(16, 18, (0.5,) * 3, (0.5,) * 3), workers=workers)
    assert str(caught.value) == (
        f"cannot read the image {folder}/bad/bomb.png because it claims to have 3,600,000,000 pixels, "
        "more than the 89,478,485 pixels allowed (--data.max-pixels 3600000000 allows it); mend the file or "
        "take it out of the set"
    )


def test_evaluation_reads_a_folder_of_unusual_images(folder: Path) -> None:
    for file in (folder / "bad").iterdir():
        file.unlink()
    found = extract_pixels(open_images("flat", root=folder), Transform(16, 18, (0.5,) * 3, (0.5,) * 3))
    assert found.shape == (28, 3 * 16 * 16) and bool(torch.isfinite(found).all())


@pytest.mark.parametrize("change", ["added", "removed", "renamed"])
def test_images_that_changed_between_runs_are_refused(change: str, folder: Path) -> None:
    before = open_images("flat", root=folder)
    fingerprint, count = before.fingerprint, len(before)
    require_same_images(open_images("flat", root=folder), fingerprint=fingerprint, count=count)
    if change == "added":
        (folder / "new.jpg").write_bytes(UNUSUAL["cmyk.jpg"])
    elif change == "removed":
        (folder / "00.jpg").unlink()
    else:
        (folder / "00.jpg").rename(folder / "new.jpg")
    counts = {"added": "34 then and 35 now", "removed": "34 then and 33 now", "renamed": "34 as before, but"}
    with pytest.raises(UserError, match=counts[change]):
        require_same_images(open_images("flat", root=folder), fingerprint=fingerprint, count=count)
