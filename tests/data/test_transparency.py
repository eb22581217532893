"""Transparent pixels: on a background as Pillow's alpha_composite has them, or left out as by ImageFolder."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.png import png_by_hand
from torchvision.datasets.folder import pil_loader

from siamtransfer.data import open_images
from siamtransfer.data.decode import decode
from siamtransfer.data.from_objects import from_images, from_torch, to_pixels
from siamtransfer.data.pixel_form import BACKGROUNDS, SHOWN, pixel_form
from siamtransfer.utils.errors import UserError

DICE = np.random.default_rng(0)
RGBA = DICE.integers(0, 256, (12, 17, 4), np.uint8)
RGBA[:3, :, 3], RGBA[3:6, :, 3] = 0, 255
BACK = {**BACKGROUNDS, "10,200,30": (10, 200, 30)}


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def picture(mode: str) -> Image.Image:
    return Image.fromarray(RGBA).convert(mode)


def palette() -> Image.Image:
    return Image.fromarray(RGBA[..., :3]).quantize(9)


FILES: dict[str, Callable[[], bytes]] = {
    "png RGBA": lambda: encode(picture("RGBA"), "PNG"),
    "png LA": lambda: encode(picture("LA"), "PNG"),
    "png palette, a share for each colour": lambda: encode(
        palette(), "PNG", transparency=bytes([0, 99] + [255] * 7)
    ),
    "png palette, one colour": lambda: encode(palette(), "PNG", transparency=3),
    "png grey with a colour": lambda: encode(
        picture("L"), "PNG", transparency=int(np.asarray(picture("L"))[1, 1])
    ),
    "png RGB with a colour": lambda: encode(
        picture("RGB"), "PNG", transparency=tuple(map(int, np.asarray(picture("RGB"))[1, 1]))
    ),
    "png 1-bit with a colour": lambda: encode(picture("1"), "PNG", transparency=0),
    "webp": lambda: encode(picture("RGBA"), "WEBP", lossless=True, exact=True),
    "gif": lambda: encode(palette(), "GIF", transparency=2),
    "tiff RGBA": lambda: encode(picture("RGBA"), "TIFF"),
    "tiff LA": lambda: encode(picture("LA"), "TIFF"),
    "png RGBA of 16 bits": lambda: png_by_hand(17, 12, 16, 6, RGBA.astype(">u2") * 257),
    "png LA of 16 bits": lambda: png_by_hand(17, 12, 16, 4, RGBA[..., 2:].astype(">u2") * 257),
}


def composited(image: Image.Image, colour: tuple[int, int, int]) -> np.ndarray:
    below = Image.new("RGBA", image.size, (*colour, 255))
    return np.asarray(Image.alpha_composite(below, image.convert("RGBA")).convert("RGB"))


@pytest.mark.parametrize("background", BACK)
@pytest.mark.parametrize("kind", FILES)
def test_pixels_are_those_of_pillows_alpha_composite(kind: str, background: str) -> None:
    data = FILES[kind]()
    with Image.open(io.BytesIO(data)) as image:
        expected = composited(image, BACK[background])
    found = decode(data, form=pixel_form(background=background))
    np.testing.assert_array_equal(found, expected)
    assert found.flags.c_contiguous and found.flags.writeable
    assert (found == BACK[background]).all(axis=2).any(), "something is transparent"


@pytest.mark.parametrize("kind", FILES)
def test_alpha_is_dropped_as_torchvisions_image_folder_does(kind: str, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(FILES[kind]())
    expected = np.asarray(pil_loader(str(tmp_path / "image")))
    for form in (pixel_form(background="drop"), pixel_form()):
        same = np.array_equal(decode(tmp_path / "image", form=form), expected)
        assert same == (form.background is None)
    np.testing.assert_array_equal(decode(tmp_path / "image"), expected)


@pytest.mark.parametrize(("kind", "colour", "channels"), [(0, "grey", 1), (2, "RGB", 3)])
def test_the_transparent_colour_of_a_16_bit_png_is_compared_in_all_its_bits(kind, colour, channels) -> None:
    values = np.full((4, 5, channels), 0x1234, np.uint16)
    values[0, 0] = 0x1235  # equal in its upper eight bits
    key = b"\x12\x34" * channels
    data = png_by_hand(5, 4, 16, kind, values.astype(">u2"), (b"tRNS", key))
    found = decode(data, form=SHOWN)
    assert found[0, 0].tolist() == [0x12] * 3, colour
    assert (found[1:] == 255).all()
    assert (decode(data) == 0x12).all()


@pytest.mark.parametrize("premultiplied", [True, False])
@pytest.mark.parametrize("bits", [8, 12])
def test_alpha_of_a_tiff_is_multiplied_into_its_colours_or_not(premultiplied: bool, bits: int) -> None:
    tifffile = pytest.importorskip("tifffile")
    values = RGBA.astype(np.uint16)
    if premultiplied:
        values[..., :3] = np.rint(RGBA[..., :3] * (RGBA[..., 3:] / 255))
    values = values.astype(np.uint8) if bits == 8 else values << 4
    out = io.BytesIO()
    kind = "assocalpha" if premultiplied else "unassalpha"
    tifffile.imwrite(out, values, photometric="rgb", extrasamples=[kind])
    form = pixel_form(bit_depth=None if bits == 8 else 12, background="10,200,30")
    expected = composited(picture("RGBA"), (10, 200, 30)).astype(int)
    assert np.abs(decode(out.getvalue(), form=form) - expected).max() <= (2 if premultiplied else 0)


def test_a_fourth_channel_that_is_no_alpha_is_left_out() -> None:
    tifffile = pytest.importorskip("tifffile")
    for values in (RGBA, RGBA.astype(np.uint16) << 4):
        out = io.BytesIO()
        tifffile.imwrite(out, values, photometric="rgb", extrasamples=["unspecified"])
        form = pixel_form(bit_depth=None if values is RGBA else 12)
        np.testing.assert_array_equal(decode(out.getvalue(), form=form), RGBA[..., :3])


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "RGBa", "La"])
def test_pictures_in_memory_are_composited_too(mode: str) -> None:
    image = picture({"PA": "LA", "La": "LA"}.get(mode, "RGBA")).convert(mode)
    straight = image.convert({"La": "LA", "RGBa": "RGBA"}.get(mode, mode))
    for background in BACK:
        found = from_images([image], background=background).image(0)
        np.testing.assert_array_equal(found, composited(straight, BACK[background]))
    assert from_images([image], background="drop").form.as_dict() == {"orientation": "shown"}
    np.testing.assert_array_equal(from_torch([(image, 0)]).image(0), composited(straight, (255, 255, 255)))
    np.testing.assert_array_equal(to_pixels(image, "an image"), np.asarray(straight.convert("RGB")))


def test_images_of_one_opaque_colour_more_stay_as_they_are() -> None:
    opaque = RGBA.copy()
    opaque[..., 3] = 255
    np.testing.assert_array_equal(decode(encode(Image.fromarray(opaque), "PNG"), form=SHOWN), opaque[..., :3])


def drawing(path: Path, colour: int) -> None:
    """A shape of one colour on nothing, the transparent pixels stored as black, as clip art is."""
    pixels = np.zeros((12, 17, 4), np.uint8)
    pixels[3:9, 4:11] = (colour, colour, colour, 255)
    Image.fromarray(pixels).save(path)


def test_clip_art_is_no_blank_and_drawings_in_the_colour_of_the_background_are_said(
    tmp_path, messages
) -> None:
    drawing(tmp_path / "black.png", 0)
    drawing(tmp_path / "white.png", 255)
    Image.new("RGBA", (9, 9)).save(tmp_path / "nothing.png")
    images = open_images("flat", root=tmp_path)
    assert "3 of 3 files that were looked at" in messages.text
    assert "have transparent pixels, which show white (--data.background states another" in messages.text
    assert "1 of these, such as" in messages.text and "white.png, show nothing on white" in messages.text
    assert "--data.background black shows them" in messages.text
    assert images.remark is not None and "show nothing on white" in images.remark
    by_name = {Path(images.describe(index)).name: images.image(index) for index in range(3)}
    assert np.ptp(by_name["black.png"]) == 255
    assert (by_name["white.png"] == 255).all() and (by_name["nothing.png"] == 255).all()
    assert messages.text.count("white.png shows nothing on white") == 1
    assert "nothing.png" not in messages.text, "no background would show it"
    messages.clear()
    black = open_images("flat", root=tmp_path, background="black")
    assert np.ptp(black.image(2)) == 255 and "white.png" not in messages.text
    assert "black.png, show nothing on black" in messages.text and "--data.background white" in messages.text
    dropped = open_images("flat", root=tmp_path, background="drop")
    assert np.ptp(dropped.image(0)) == 0, "the blank that the published reading makes of it"


def test_sets_of_arrays_take_no_background() -> None:
    with pytest.raises(UserError, match="does not take it"):
        open_images("fashion-objects", background="black")
