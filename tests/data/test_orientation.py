"""EXIF orientation: every kind of file is turned as Pillow's exif_transpose turns it, or not at all."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, features

from siamtransfer.data import open_images
from siamtransfer.data.decode import FORMATS, decode
from siamtransfer.data.imageset import content_fingerprint
from siamtransfer.data.orientation import (
    orientation_of_exif,
    orientation_of_jpeg,
    stored_size,
    turn,
    turn_back,
)
from siamtransfer.data.pixel_form import RGB, SHOWN, PixelForm
from siamtransfer.utils.errors import UserError

TAG = 0x0112
PIXELS = np.random.default_rng(0).integers(0, 256, (9, 14, 3), np.uint8)


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[TAG] = orientation
    return exif


def encode(kind: str, orientation: int | None, pixels: np.ndarray = PIXELS, mode: str | None = None) -> bytes:
    image = Image.fromarray(pixels)
    out = io.BytesIO()
    options: dict[str, object] = {} if orientation is None else {"exif": exif_of(orientation)}
    if kind in ("WEBP", "AVIF"):
        options |= {"lossless": True} if kind == "WEBP" else {"quality": 100, "subsampling": "4:4:4"}
    (image.convert(mode) if mode else image).save(out, kind, **options)
    return out.getvalue()


def png_with_the_chunk_behind(orientation: int | None) -> bytes:
    """The chunk eXIf stands behind the pixels, where some programs write it."""
    data = encode("PNG", orientation)
    if orientation is None:
        return data
    start = data.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    return data[:start] + data[end:-12] + data[start:end] + data[-12:]


KINDS = {
    "jpeg": lambda turned: encode("JPEG", turned),
    "jpeg grey": lambda turned: encode("JPEG", turned, mode="L"),
    "jpeg CMYK": lambda turned: encode("JPEG", turned, mode="CMYK"),
    "png": lambda turned: encode("PNG", turned),
    "png, chunk behind": png_with_the_chunk_behind,
    "png palette": lambda turned: encode("PNG", turned, mode="P"),
    "webp": lambda turned: encode("WEBP", turned),
    "tiff": lambda turned: encode("TIFF", turned),
    "tiff grey": lambda turned: encode("TIFF", turned, mode="L"),
}
if features.check("avif"):
    KINDS["avif"] = lambda turned: encode("AVIF", turned)


def as_pillow_shows(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", KINDS)
def test_images_are_turned_as_pillow_turns_them(kind: str, orientation: int) -> None:
    data = KINDS[kind](orientation)
    shown = decode(data, form=SHOWN)
    np.testing.assert_array_equal(shown, as_pillow_shows(data))
    assert shown.flags.c_contiguous and shown.flags.writeable
    np.testing.assert_array_equal(decode(data, form=RGB), decode(KINDS[kind](None), form=SHOWN))
    assert (shown.shape[:2] == (14, 9)) == (orientation >= 5)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiff_files_beyond_pillow_are_turned_too(orientation: int) -> None:
    tifffile = pytest.importorskip("tifffile")
    deep = PIXELS.astype(np.uint16) << 4
    bands = np.dstack([PIXELS, PIXELS])
    for values, photometric, form in (
        (deep, "rgb", PixelForm(bit_depth=12, orientation="shown")),
        (bands, "minisblack", PixelForm(6, orientation="shown")),
    ):
        out = io.BytesIO()
        tags = [(TAG, "H", 1, orientation, True)]
        tifffile.imwrite(out, values, photometric=photometric, planarconfig="contig", extratags=tags)
        pixels = PIXELS if form.channels == 3 else bands
        found = decode(out.getvalue(), form=form)
        np.testing.assert_array_equal(found, turn(pixels, orientation))
        np.testing.assert_array_equal(found[..., :3], as_pillow_shows(encode("PNG", orientation)))
        stored = PixelForm(form.channels, form.bit_depth)
        np.testing.assert_array_equal(decode(out.getvalue(), form=stored), pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_header_tells_size_and_orientation_without_decoding(tmp_path: Path, orientation: int) -> None:
    for kind, make in KINDS.items():
        path = tmp_path / f"{kind}.bin"
        path.write_bytes(make(orientation))
        size = stored_size(path, FORMATS)
        assert size == (9, 14, orientation), kind
        assert size.size("shown") == decode(path, form=SHOWN).shape[:2]
        assert size.size("stored") == (9, 14)


def test_turning_back_is_the_inverse() -> None:
    for orientation in range(1, 9):
        np.testing.assert_array_equal(turn_back(turn(PIXELS, orientation), orientation), PIXELS)


def test_alpha_as_a_channel_and_transparency_are_turned() -> None:
    rgba = np.dstack([PIXELS, PIXELS[..., 0]])
    data = encode("PNG", 6, rgba)
    turned = PixelForm(4, orientation="shown")
    np.testing.assert_array_equal(decode(data, form=turned), turn(rgba, 6))
    np.testing.assert_array_equal(decode(data, form=PixelForm(4)), rgba)
    np.testing.assert_array_equal(
        decode(data, form=SHOWN), turn(decode(encode("PNG", None, rgba), form=SHOWN), 6)
    )


@pytest.mark.parametrize("value", [0, 9, 255, 65535])
def test_orientations_that_there_are_not_turn_nothing(value: int) -> None:
    block = exif_of(value).tobytes()
    assert orientation_of_exif(block) == 1
    out = io.BytesIO()
    Image.fromarray(PIXELS).save(out, "PNG", exif=block)
    np.testing.assert_array_equal(decode(out.getvalue(), form=SHOWN), PIXELS)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_broken_exif_blocks_are_passed_over(kind: str) -> None:
    """Whatever its bytes: the pixels of one of the eight orientations, and no error."""
    block = exif_of(6).tobytes()
    dice = random.Random(kind)
    whole = decode(encode(kind, None))
    ways = {turn(whole, orientation).tobytes() for orientation in range(1, 9)}
    for number in range(60):
        broken = bytearray(block)
        for _ in range(dice.randint(1, 4)):
            broken[dice.randrange(6, len(block))] = dice.randrange(256)
        cut = bytes(broken[: dice.randrange(6, len(block))] if number % 3 == 0 else broken)
        out = io.BytesIO()
        options = {"lossless": True} if kind == "WEBP" else {}
        Image.fromarray(PIXELS).save(out, kind, exif=cut, **options)
        assert decode(out.getvalue(), form=SHOWN).tobytes() in ways


def test_a_jpeg_is_walked_through_fill_bytes_other_segments_and_to_its_end() -> None:
    data = encode("JPEG", 8)
    start = data.index(b"\xff\xe1")
    other = b"\xff\xe1\x00\x08abcdef"  # the same kind of segment, with another content
    assert orientation_of_jpeg(data[:start] + other + b"\xff\xff" + data[start:]) == 8
    for end in range(2, len(data), 3):
        assert orientation_of_jpeg(data[:end]) in (1, 8)
    assert orientation_of_jpeg(b"\xff\xd8\xff\xda" + data[start:]) == 1, "what stands in the scan is no block"


def write(folder: Path, orientation: int = 6, names: tuple[str, ...] = ("0.jpg", "1.jpg")) -> Path:
    for split in ("train", "val"):
        for name in names:
            (folder / split / "a").mkdir(parents=True, exist_ok=True)
            (folder / split / "a" / name).write_bytes(encode("JPEG", orientation))
    return folder


def test_own_images_are_shown_and_published_sets_stored_unless_it_is_stated(tmp_path, messages) -> None:
    root = write(tmp_path)
    own = open_images("folder", root=root)
    assert own.image(0).shape == (14, 9, 3)
    assert "2 of 2 files that were looked at, such as" in messages.text
    assert "are turned as their EXIF orientation says (--data.orientation stored" in messages.text
    messages.clear()
    published = open_images("imagenet", root=root)
    assert published.image(0).shape == (9, 14, 3)
    assert open_images("imagenet", root=root, orientation="shown").image(0).shape == (14, 9, 3)
    stored = open_images("folder", root=root, orientation="stored")
    assert stored.image(0).shape == (9, 14, 3)
    assert not messages.text
    assert open_images("flat", root=root).image(0).shape == (14, 9, 3)
    with pytest.raises(UserError, match="does not take it"):
        open_images("fashion-objects", orientation="stored")


def test_a_fingerprint_names_the_set_and_the_key_of_a_cache_the_reading_too(tmp_path: Path) -> None:
    root = write(tmp_path)
    shown, stored = (open_images("folder", root=root, orientation=each) for each in ("shown", "stored"))
    assert shown.fingerprint == stored.fingerprint
    assert content_fingerprint(shown) != content_fingerprint(stored)
    dropped = open_images("folder", root=root, background="drop")
    black = open_images("folder", root=root, background="black")
    assert len({content_fingerprint(each) for each in (shown, dropped, black)}) == 3
    published, named = open_images("imagenet", root=root), open_images("imagenet", root=root)
    named.form = PixelForm()  # type: ignore[attr-defined]
    assert content_fingerprint(published) == content_fingerprint(named), "as it was before there was a choice"
    assert shown.form.as_dict() == {"orientation": "shown", "background": "white"}  # type: ignore[attr-defined]
    assert published.form.as_dict() == {}  # type: ignore[attr-defined]
