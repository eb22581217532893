"""Images of other than three channels: what a file stores is what a set gives, and nothing is converted."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from siamtransfer.data import from_array, from_images, from_torch, open_dataset, open_images
from siamtransfer.data.decode import decode
from siamtransfer.data.pixel_form import PixelForm, pixel_form
from siamtransfer.data.readers import ReplacingReader
from siamtransfer.data.unreadable import UnreadableImage, WrongChannels
from siamtransfer.utils.errors import UserError

H, W = 6, 9
DICE = np.random.default_rng(0)


pytestmark = pytest.mark.usefixtures("messages")


def pixels(channels: int, dtype: type = np.uint8) -> np.ndarray:
    top = 256 if dtype is np.uint8 else 10_000
    return DICE.integers(0, top, (H, W, channels)).astype(dtype)


def tiff(values: np.ndarray, **options: object) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, values, **options)  # type: ignore[arg-type]
    return out.getvalue()


def npy(values: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, values)
    return out.getvalue()


def picture(mode: str, kind: str = "PNG") -> tuple[np.ndarray, bytes]:
    values = pixels(len(mode))
    out = io.BytesIO()
    Image.fromarray(values if len(mode) > 1 else values[..., 0], mode).save(out, kind)
    return values, out.getvalue()


def samples(values: np.ndarray) -> dict[str, bytes]:
    """One image of many channels in every way that is written."""
    options: dict[str, object] = {"photometric": "minisblack"}
    first = np.ascontiguousarray(values.transpose(2, 0, 1))
    return {
        "TIFF, interleaved": tiff(values, planarconfig="contig", **options),
        "TIFF, planes": tiff(first, planarconfig="separate", **options),
        "TIFF, deflated": tiff(values, planarconfig="contig", compression="zlib", predictor=2, **options),
        "TIFF, tiles": tiff(values, planarconfig="contig", tile=(16, 16), **options),
        "TIFF, big": tiff(values, planarconfig="contig", bigtiff=True, **options),
        "TIFF, big-endian": tiff(values, planarconfig="contig", byteorder=">", **options),
        "TIFF, pages": tiff(first, **options),
        "array, channels last": npy(values),
        "array, channels first": npy(first),
        "array, Fortran's order": npy(np.asfortranarray(values)),
    }


@pytest.mark.parametrize("channels", [2, 4, 5, 13])
def test_every_way_to_store_channels_gives_the_same_pixels(channels):
    values = pixels(channels)
    for way, data in samples(values).items():
        image = decode(data, way, PixelForm(channels))
        assert image.dtype == np.uint8 and image.flags.c_contiguous and image.flags.writeable, way
        np.testing.assert_array_equal(image, values, err_msg=way)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA"])
def test_files_of_pillow_keep_their_channels_where_these_are_asked_for(mode):
    values, data = picture(mode)
    np.testing.assert_array_equal(decode(data, form=PixelForm(len(mode))), values)
    assert decode(data).shape == (H, W, 3)


def test_alpha_is_the_fourth_channel_only_where_four_are_asked_for():
    values, png = picture("RGBA")
    _, webp = picture("RGB", "WEBP")
    for data in (png, tiff(values, photometric="rgb", extrasamples=["unassalpha"])):
        np.testing.assert_array_equal(decode(data), values[..., :3])
        np.testing.assert_array_equal(decode(data, form=PixelForm(4)), values)
    with pytest.raises(WrongChannels, match="has 3 channels"):
        decode(webp, "photo", PixelForm(4))


def test_a_grey_jpeg_stays_one_channel():
    out = io.BytesIO()
    Image.fromarray(pixels(1)[..., 0]).save(out, "JPEG")
    grey = decode(out.getvalue(), form=PixelForm(1))
    assert grey.shape == (H, W, 1)
    np.testing.assert_array_equal(np.repeat(grey, 3, axis=2), decode(out.getvalue()))


@pytest.mark.parametrize("compression", ["lzw", "packbits", "zstd"])
def test_compressions_of_the_extra(compression):
    pytest.importorskip("imagecodecs")
    values = pixels(13, np.uint16)
    data = tiff(values, planarconfig="contig", photometric="minisblack", compression=compression)
    np.testing.assert_array_equal(decode(data, form=PixelForm(13, 14)), values >> 6)


def test_deep_channels_are_scaled_as_the_set_says(messages):
    values = pixels(13, np.uint16)
    data = npy(values)
    np.testing.assert_array_equal(decode(data, form=PixelForm(13, bit_depth=14)), values >> 6)
    np.testing.assert_array_equal(decode(data, form=PixelForm(13, bit_depth=16)), values >> 8)
    assert not messages.text
    stretched = decode(data, form=PixelForm(13, value_range=(1000.0, 6000.0)))
    expected = np.clip((values.astype(float) - 1000) / 5000, 0, 1) * 255
    assert np.abs(stretched - expected).max() <= 0.5
    assert "those beyond --data.value-range 1000 6000 are clipped" in messages.text
    with pytest.raises(UnreadableImage, match="which 12 bits"):
        decode(data, form=PixelForm(13, bit_depth=12))


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 13])
def test_floating_point_channels_need_a_range(channels):
    values = DICE.random((H, W, channels), np.float32) * 2 - 1
    form = PixelForm(channels, value_range=(-1.0, 1.0))
    planes = {"planarconfig": "contig"} if channels > 1 else {}
    for data in (npy(values), tiff(values.squeeze(), photometric="minisblack", **planes)):
        image = decode(data, form=form)
        assert np.abs(image - (values.astype(float) + 1) * 127.5).max() <= 0.5001
        if channels > 1:
            with pytest.raises(UnreadableImage, match=r"--data\.value-range"):
                decode(data, form=PixelForm(channels))
    values[0, 0, 0] = np.nan
    with pytest.raises(UnreadableImage, match="not all finite"):
        decode(npy(values), form=form)


def test_a_range_leaves_eight_bits_as_they_are_and_says_so(messages):
    values, out = pixels(4, np.uint8), io.BytesIO()
    np.testing.assert_array_equal(decode(npy(values), form=PixelForm(4, value_range=(0.0, 80.0))), values)
    assert messages.text.count("has values of eight bits, which are taken as they are") == 1
    Image.fromarray(values[..., :3]).save(out, "PNG")
    for form in (PixelForm(), PixelForm(value_range=(0.0, 80.0))):
        np.testing.assert_array_equal(decode(out.getvalue(), form=form), values[..., :3])
    assert messages.text.count("eight bits") == 1  # once in a process


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_no_file_of_eight_bits_is_silent_about_a_range(messages, kind):
    out = io.BytesIO()
    Image.fromarray(pixels(3, np.uint8)).save(out, kind)
    decode(out.getvalue())
    assert not messages.text
    decode(out.getvalue(), form=PixelForm(value_range=(0.0, 80.0)))
    assert "has values of eight bits" in messages.text


def test_a_range_scales_grey_depth_that_becomes_three_channels():
    values = np.linspace(0, 80, H * W, dtype=np.float32).reshape(H, W)
    out = io.BytesIO()
    Image.fromarray(values).save(out, "TIFF")
    image = decode(out.getvalue(), form=PixelForm(value_range=(0.0, 80.0)))
    assert image.shape == (H, W, 3) and np.ptp(image, axis=2).max() == 0
    assert np.abs(image[..., 0] - values * 255 / 80).max() <= 0.5001


def test_sixteen_bit_colours_of_a_tiff_keep_their_bits_where_a_scale_is_stated():
    values = pixels(3, np.uint16)
    data = tiff(values, photometric="rgb")
    np.testing.assert_array_equal(decode(data), values >> 8)
    np.testing.assert_array_equal(decode(data, form=PixelForm(bit_depth=14)), values >> 6)


REFUSED = {
    "13 bands in a set of colours": (
        tiff(pixels(13), photometric="minisblack", planarconfig="contig"),
        3,
        "13",
    ),
    "13 bands in a set of 4": (tiff(pixels(13), photometric="minisblack", planarconfig="contig"), 4, "13"),
    "colours in a grey set": (picture("RGB")[1], 1, "has 3 channels"),
    "colours of a JPEG in a grey set": (picture("RGB", "JPEG")[1], 1, "has 3 channels"),
    "grey in a set of 4": (picture("L")[1], 4, "has 1 channel,"),
    "an array without the channels": (npy(pixels(5)), 7, "neither the first nor the last axis"),
    "an array with them twice": (npy(DICE.integers(0, 9, (6, 9, 6), np.uint8)), 6, "--data.axes hwc or chw"),
    "a flat array for 3": (npy(pixels(1)[..., 0]), 3, "has 1 channel,"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_another_number_of_channels_is_refused_with_the_file_and_the_option(kind):
    data, channels, reason = REFUSED[kind]
    with pytest.raises(WrongChannels) as caught:
        decode(data, "the file", PixelForm(channels))
    text = str(caught.value)
    assert text.startswith("the file ") and reason in text and "--data." in text and "damaged" not in text
    head = "Caught WrongChannels in DataLoader worker process 0.\nOriginal Traceback:\n  line\n"
    assert str(WrongChannels(f"{head}{WrongChannels.__module__}.WrongChannels: {text}\n")) == text


def test_axes_decide_where_both_fit():
    cube = DICE.integers(0, 255, (5, 7, 5), np.uint8)
    np.testing.assert_array_equal(decode(npy(cube), form=PixelForm(5, axes="hwc")), cube)
    np.testing.assert_array_equal(decode(npy(cube), form=PixelForm(5, axes="chw")), cube.transpose(1, 2, 0))


def test_palettes_and_inks_are_no_channels():
    out = io.BytesIO()
    Image.fromarray(pixels(4), "CMYK").save(out, "JPEG")
    with pytest.raises(WrongChannels, match="inks"):
        decode(out.getvalue(), "inks", PixelForm(4))
    out = io.BytesIO()
    Image.fromarray(pixels(1)[..., 0]).convert("P").save(out, "PNG")
    with pytest.raises(WrongChannels, match="palette"):
        decode(out.getvalue(), "indices", PixelForm(1))


@pytest.mark.parametrize("way", list(samples(pixels(5))))
def test_damaged_files_are_unreadable_and_never_an_exception(way):
    data = samples(pixels(5))[way]
    dice = np.random.default_rng(len(way))
    with pytest.raises(UnreadableImage):
        decode(data[: len(data) // 2], "half", PixelForm(5))
    for _ in range(60):
        broken = bytearray(data)
        for position in dice.integers(0, min(len(data), 300), 3):
            broken[position] = dice.integers(256)
        with contextlib.suppress(UnreadableImage, WrongChannels):
            assert decode(bytes(broken), "broken", PixelForm(5)).shape[2] == 5


def test_what_claims_to_be_large_takes_no_memory(monkeypatch):
    header = npy(np.zeros((2, 2, 4), np.uint8)).replace(b"(2, 2, 4)", b"(200000, 9000, 4)", 1)
    with pytest.raises(UnreadableImage, match="pixels allowed"):
        decode(header[:300], "huge", PixelForm(4))
    claimed = npy(np.zeros((2, 2, 4), np.uint8)).replace(b"(2, 2, 4), }", b"(80, 90, 4), }", 1)
    with pytest.raises(UnreadableImage, match="its end is missing"):
        decode(claimed, "short", PixelForm(4))
    objects = npy(np.zeros(1)).replace(b"'<f8'", b"'|O' ", 1)
    with pytest.raises(UnreadableImage, match="Python objects"):
        decode(objects, "code", PixelForm(1))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", H * W - 1)
    with pytest.raises(UnreadableImage, match=f"{H * W} pixels, more than the {H * W - 1} pixels allowed"):
        decode(tiff(pixels(1)[..., 0]), "large", PixelForm(1))


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def bands(count: int) -> bytes:
    return tiff(pixels(count), photometric="minisblack", planarconfig="contig")


def test_many_bands_are_taken_with_a_line_that_says_so(tmp_path, messages):
    write(tmp_path, {"train/a/1.tif": bands(13), "train/b/1.tif": bands(13), "test/a/1.tif": bands(13)})
    write(tmp_path, {"test/b/1.tif": bands(13)})
    train, test = open_dataset(tmp_path)
    assert test is not None
    assert train.image(0).shape == test.image(1).shape == (H, W, 13)
    assert "its images have 13 channels" in messages.text and "1.tif" in messages.text
    stated = open_images("folder", root=tmp_path, channels=13)
    assert (
        stated.fingerprint
        == train.fingerprint
        != open_images("folder", root=tmp_path, channels=13, bit_depth=9).fingerprint
    )


def test_a_mixed_set_is_refused_by_name_at_the_start_or_where_it_is_read(tmp_path):
    write(tmp_path / "small", {f"{n}.tif": bands(13) for n in range(3)} | {"zz.tif": bands(12)})
    with pytest.raises(UserError, match=r"zz\.tif has 12 channels"):
        open_images("flat", root=tmp_path / "small")
    write(
        tmp_path / "jpeg", {f"{n}.tif": bands(13) for n in range(3)} | {"zz.jpg": picture("RGB", "JPEG")[1]}
    )
    images = open_images("flat", root=tmp_path / "jpeg")
    with pytest.raises(WrongChannels, match=r"zz\.jpg has 3 channels"):
        ReplacingReader(images)(3)
    write(tmp_path / "late", {"0.jpg": picture("RGB", "JPEG")[1], "1.tif": bands(5)})
    late = open_images("flat", root=tmp_path / "late", channels=3)
    with pytest.raises(WrongChannels, match=r"1\.tif has 5 channels"):
        late.image(1)


def test_the_stated_number_is_compared_with_the_first_file(tmp_path):
    write(tmp_path, {"a.png": picture("RGBA")[1]})
    with pytest.raises(UserError, match=r"a\.png has 4 channels.*--data\.channels"):
        open_images("flat", root=tmp_path, channels=13)
    assert open_images("flat", root=tmp_path, channels=4).image(0).shape == (H, W, 4)


def test_alpha_and_pages_that_are_left_out_are_said(tmp_path, messages):
    write(tmp_path / "alpha", {"a.png": picture("RGBA")[1], "b.png": picture("RGB")[1]})
    images = open_images("flat", root=tmp_path / "alpha")
    assert images.image(0).shape == (H, W, 3)
    assert "a.png, have transparent pixels, which show white" in messages.text
    assert "--data.channels 4 takes alpha" in images.remark  # type: ignore[attr-defined]
    messages.clear()
    open_images("flat", root=tmp_path / "alpha", channels=3, background="drop")
    assert not messages.text, "three without alpha were asked for"
    open_images("flat", root=tmp_path / "alpha", background="drop")
    assert "a.png, have 4 channels, and the last is left out as alpha" in messages.text
    write(tmp_path / "pages", {"a.tif": tiff(pixels(5).transpose(2, 0, 1).copy(), photometric="minisblack")})
    assert open_images("flat", root=tmp_path / "pages").image(0).shape == (H, W, 3)
    assert "several pages, of which the first is taken" in messages.text
    assert open_images("flat", root=tmp_path / "pages", channels=5).image(0).shape == (H, W, 5)


def test_arrays_are_images_of_a_set_that_holds_no_other(tmp_path):
    write(tmp_path / "arrays", {"train/a/1.npy": npy(pixels(5)), "train/b/1.npy": npy(pixels(5))})
    images = open_images("folder", root=tmp_path / "arrays", channels=5)
    assert len(images) == 2 and images.image(1).shape == (H, W, 5)
    assert len(open_images("flat", root=tmp_path / "arrays" / "train", channels=5)) == 2
    with pytest.raises(UserError, match=r"--data\.channels"):
        open_images("folder", root=tmp_path / "arrays").image(0)
    write(tmp_path / "beside", {"1.jpg": picture("RGB", "JPEG")[1], "1.npy": npy(np.zeros(512))})
    assert len(open_images("flat", root=tmp_path / "beside")) == 1


def test_without_the_extra_a_file_of_many_bands_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tifffile", None)
    write(tmp_path, {"a.tif": bands(13)})
    with pytest.raises(UserError, match=r"pip install 'siamtransfer\[multichannel\]'"):
        open_images("flat", root=tmp_path)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"channels": 0}, "one channel or more"),
        ({"channels": -4}, "one channel or more"),
        ({"value_range": [1.0, 1.0]}, "two rising numbers"),
        ({"value_range": [0.0]}, "two rising numbers"),
        ({"value_range": [0.0, float("nan")]}, "two rising numbers"),
        ({"orientation": "turned"}, "shown or stored"),
        ({"background": "red"}, "white, black, three numbers"),
        ({"background": "1,2"}, "white, black, three numbers"),
        ({"background": "0,0,256"}, "white, black, three numbers"),
        ({"background": "white", "channels": 4}, "for images of three channels"),
        ({"axes": "cwh"}, "hwc or chw"),
    ],
)
def test_impossible_forms_are_one_sentence(options, reason):
    with pytest.raises(UserError, match=reason):
        pixel_form(**options)


def test_sets_without_such_a_choice_refuse_it(tmp_path):
    with pytest.raises(UserError, match="does not take it"):
        open_images("fashion-scenes", channels=4, count=10)
    with pytest.raises(UserError, match="say 1 or 3"):
        open_images("fashion-objects", channels=2)
    grey, three = (open_images("fashion-objects", channels=c) for c in (1, None))
    np.testing.assert_array_equal(np.repeat(grey.image(5), 3, axis=2), three.image(5))
    assert grey.fingerprint != three.fingerprint


def test_objects_state_their_channels(tmp_path):
    cubes = DICE.integers(0, 255, (4, H, W, 13), np.uint8)
    assert from_array(cubes, channels=13).image(1).shape == (H, W, 13)
    assert from_array(cubes[..., 0], channels=1).image(1).shape == (H, W, 1)
    for wrong in ({}, {"channels": 12}):
        with pytest.raises(UserError, match=r"must be uint8\[N,H,W"):
            from_array(cubes, **wrong)

    class Tensors:
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            return torch.from_numpy(cubes[index]).permute(2, 0, 1), index % 2

    images = from_torch(Tensors(), channels=13)
    np.testing.assert_array_equal(images.image(2), cubes[2])
    with pytest.raises(UserError, match=r"it must be \[3,H,W\] or \[1,H,W\]"):
        from_torch(Tensors()).image(0)
    values, data = picture("RGBA")
    write(tmp_path, {"a.png": data})
    both = from_images([tmp_path / "a.png", Image.fromarray(values)], channels=4)
    np.testing.assert_array_equal(both.image(0), both.image(1))
