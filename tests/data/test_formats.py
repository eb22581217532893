"""HEIC, AVIF, JPEG 2000, TGA and DICOM: against Pillow's, pillow-heif's and pydicom's own decoding."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pillow_heif
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.pixels import apply_modality_lut, apply_voi_lut, pixel_array
from support.dicom_files import dicom

from siamtransfer.data import file_kinds, open_images
from siamtransfer.data.decode import decode
from siamtransfer.data.dicom import is_dicom
from siamtransfer.data.file_kinds import FileKind, Package, kind_of_ending
from siamtransfer.data.jpeg_xl import size_of_jpeg_xl
from siamtransfer.data.listing import ENDINGS
from siamtransfer.data.pixel_form import RGB, SHOWN, PixelForm
from siamtransfer.data.tga import is_tga
from siamtransfer.data.unreadable import UnreadableImage, WrongChannels

PHOTO = np.random.default_rng(0).integers(0, 256, (24, 31, 3), dtype=np.uint8)


def encoded(kind: str, mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PHOTO).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def heic(**options: object) -> bytes:
    buffer = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(PHOTO)).save(buffer, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        *(("TGA", mode) for mode in ("RGB", "L", "P", "1")),
        ("AVIF", "RGB"),
        ("AVIF", "L"),
        ("JPEG2000", "RGB"),
        ("JPEG2000", "L"),
    ],
)
def test_formats_of_pillow_are_read_as_pillow_reads_them(kind: str, mode: str) -> None:
    data = encoded(kind, mode)
    with Image.open(io.BytesIO(data)) as picture:
        expected = np.asarray(picture.convert("RGB"))
    np.testing.assert_array_equal(decode(data), expected)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P"])
def test_tga_is_known_by_its_header_where_it_has_no_signature(mode: str) -> None:
    for compression in (None, "tga_rle"):
        data = encoded("TGA", mode, compression=compression)
        without_signature = data[:-26]
        assert is_tga(data)
        assert is_tga(without_signature)
        np.testing.assert_array_equal(decode(without_signature), decode(data))
        with pytest.raises(UnreadableImage):
            decode(data[: len(data) // 2])


def test_other_files_are_no_tga() -> None:
    dice = np.random.default_rng(1)
    files = [dice.integers(0, 256, 1000, dtype=np.uint8).tobytes() for _ in range(3000)]
    files += [bytes(1000), b"<html>" * 50, *(encoded(kind) for kind in ("PNG", "JPEG", "BMP", "PPM", "GIF"))]
    assert not any(map(is_tga, files))


def test_heic_is_read_as_pillow_heif_reads_it_and_turned_once() -> None:
    np.testing.assert_array_equal(
        decode(heic()), np.asarray(pillow_heif.open_heif(io.BytesIO(heic())).to_pillow())
    )
    exif = Image.Exif()
    exif[274] = 6
    turned = heic(exif=exif.tobytes(), quality=95)
    upright = np.rot90(PHOTO, -1).astype(int)
    for form in (SHOWN, RGB):  # its rotation is a part of the format, not a note in its EXIF block
        pixels = decode(turned, form=form)
        assert pixels.shape == (31, 24, 3)
        assert abs(pixels - upright).mean() < abs(pixels[::-1, ::-1] - upright).mean() / 1.5
    with pytest.raises(UnreadableImage):
        decode(heic()[:300])


STORED = np.linspace(0, 4095, 20 * 30).reshape(20, 30).astype(np.uint16)


def test_a_stated_range_is_a_window_in_the_units_of_the_modality() -> None:
    data = dicom(STORED, 12, RescaleSlope=2, RescaleIntercept=-1024)
    hounsfield = STORED.astype(float) * 2 - 1024
    expected = np.rint(np.clip((hounsfield + 160) / 400, 0, 1) * 255)
    grey = decode(data, form=replace(SHOWN, value_range=(-160.0, 240.0)))
    assert grey.shape == (20, 30, 3)
    np.testing.assert_array_equal(grey, np.repeat(expected[..., None], 3, axis=2))
    one = decode(data, form=PixelForm(1, value_range=(-160.0, 240.0)))
    np.testing.assert_array_equal(one[..., 0], expected)


def test_small_values_are_white_where_the_file_says_so() -> None:
    usual = decode(dicom(STORED, 12))
    inverted = decode(dicom(STORED, 12, kind="MONOCHROME1"))
    np.testing.assert_array_equal(inverted, 255 - usual)
    assert (usual.min(), usual.max()) == (0, 255)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_without_a_range_the_window_of_the_file_counts_as_in_viewers(function: str) -> None:
    tags = {"WindowCenter": 600, "WindowWidth": 800, "VOILUTFunction": function}
    data = dicom(STORED, 12, RescaleSlope=1, RescaleIntercept=0, **tags)
    file = pydicom.dcmread(io.BytesIO(data))
    windowed = apply_voi_lut(apply_modality_lut(pixel_array(file), file), file)
    expected = np.rint(windowed / 4095 * 255)
    np.testing.assert_allclose(decode(data)[..., 0], expected, atol=1)


@pytest.mark.parametrize("width", [0, None, [0, 400]])
def test_a_window_without_width_is_none(width: object) -> None:
    data = dicom(STORED, 12, WindowCenter=[600, 700], WindowWidth=width)
    np.testing.assert_array_equal(decode(data), decode(dicom(STORED, 12)))


def test_of_several_windows_the_first_counts() -> None:
    several = dicom(STORED, 12, WindowCenter=[600, 2000], WindowWidth=[800, 4000])
    np.testing.assert_array_equal(
        decode(several), decode(dicom(STORED, 12, WindowCenter=600, WindowWidth=800))
    )
    around_zero = dicom(STORED.astype(np.int16) - 2048, 16, WindowCenter=0, WindowWidth=100)
    assert decode(around_zero)[0].max() == 0 and decode(around_zero)[-1].min() == 255


def test_signed_values_and_the_first_of_several_frames() -> None:
    frames = np.stack([STORED.astype(np.int16) - 2048, np.zeros((20, 30), np.int16)])
    data = dicom(frames, 16, frames=2)
    expected = np.rint((STORED.astype(float)) / 4095 * 255)
    np.testing.assert_array_equal(decode(data)[..., 0], expected)
    eight = np.arange(200, dtype=np.uint8).reshape(10, 20)
    np.testing.assert_array_equal(decode(dicom(eight, 8))[..., 1], eight)
    assert not decode(dicom(np.full((4, 4), 7, np.uint16), 12)).any()  # of one value alone


@pytest.mark.parametrize("name", ["examples_rgb_color.dcm", "examples_ybr_color.dcm", "SC_rgb_rle.dcm"])
def test_colours_are_those_of_pydicom(name: str) -> None:
    path = get_testdata_file(name, download=False)
    assert path is not None
    file = pydicom.dcmread(path)
    pixels = decode(path)
    np.testing.assert_array_equal(pixels, pixel_array(file, index=0))
    with pytest.raises(WrongChannels, match="DICOM image of colours"):
        decode(path, form=PixelForm(1))


def test_dicom_files_that_are_no_images(tmp_path: Path) -> None:
    plan = get_testdata_file("rtplan.dcm", download=False)
    assert plan is not None
    with pytest.raises(UnreadableImage, match="without pixels"):
        decode(plan)
    whole = dicom(STORED, 12)
    assert is_dicom(whole)
    for data in (whole[:140], whole[:-100], whole[:400]):
        with pytest.raises(UnreadableImage, match="DICOM file"):
            decode(data)
    with pytest.raises(WrongChannels, match="one channel"):
        decode(whole, form=PixelForm(4))
    dice = np.random.default_rng(2)
    for _ in range(40):
        broken = bytearray(whole)
        for position in dice.integers(132, 700, 3):
            broken[position] = dice.integers(256)
        try:
            assert decode(bytes(broken)).dtype == np.uint8
        except UnreadableImage:
            continue


def test_a_missing_package_is_named_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    absent = Package("pillow-heif", "no_such_module", "heic")
    monkeypatch.setattr("siamtransfer.data.heif.PILLOW_HEIF", absent)
    monkeypatch.setitem(file_kinds.PACKAGES, "heic", absent)
    (tmp_path / "a.heic").write_bytes(heic())
    (tmp_path / "b.png").write_bytes(encoded("PNG"))
    images = open_images("flat", root=tmp_path)
    assert len(images) == 2
    with pytest.raises(UnreadableImage, match=r"HEIC photo, which needs pillow-heif .*siamtransfer\[heic\]"):
        images.image(0)
    kind = kind_of_ending("HEIC")
    assert (kind.status, "siamtransfer[heic]" in kind.advice) == ("needs package", True)


def test_kinds_of_files_by_their_ending() -> None:
    assert {ending for ending in ENDINGS if kind_of_ending(ending) != FileKind("image")} == set()
    assert kind_of_ending("npy").status == "array"
    for ending, word in {
        "CR2": "raw",
        "svg": "render",
        "mp4": "video",
        "psd": "export",
        "zip": "data.name",
    }.items():
        kind = kind_of_ending(ending)
        assert (kind.status, word in kind.advice) == ("not read", True), ending
    assert kind_of_ending("txt") == kind_of_ending("") == FileKind("other")


def test_a_folder_lists_the_new_endings_and_keeps_its_order(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.TGA", "c.dcm", "d.heic", "e.avif", "f.jp2", "g.cr2", "h.txt"):
        (tmp_path / name).touch()
    images = open_images("flat", root=tmp_path)
    assert [images.relative_name(n) for n in range(len(images))] == [
        "a.TGA", "b.jpg", "c.dcm", "d.heic", "e.avif", "f.jp2"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>404</html>", "web page"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG drawing"),
        (b"%PDF-1.7\n\xe2\xe3", "PDF document"),
        (b"\x00\x00\x00\x20ftypisom\x00\x00", "a video"),
        (b"\x00\x00\x00\x18ftypcrx \x00\x00", "raw file"),
        (b"hello, world", "is text"),
        (bytes(300), "nothing but zeros"),
        (b"\x89PNG\r\n\x1a\n", "JPEG, PNG, WebP"),
        (b"\x07\xf1\x99\x03" * 20, "JPEG, PNG, WebP"),
    ],
)
def test_what_is_no_image_is_called_by_its_name(content: bytes, what: str) -> None:
    with pytest.raises(UnreadableImage, match=what):
        decode(content, "photo.jpg")


@pytest.mark.parametrize("container", [False, True])
@pytest.mark.parametrize(
    "size", [(8, 16), (37, 61), (300, 40), (256, 8), (64, 128), (90, 160), (600, 1), (120, 144)]
)
def test_the_size_of_a_jpeg_xl_image_is_known_before_it_is_decoded(
    size: tuple[int, int], container: bool
) -> None:
    data = imagecodecs.jpegxl_encode(np.zeros(size, np.uint8), usecontainer=container)
    assert size_of_jpeg_xl(data) == size
    with pytest.raises(UnreadableImage, match=f"{size[0] * size[1]:,} pixels, more"):
        decode(data, form=replace(SHOWN, max_pixels=size[0] * size[1] - 1))


def test_jpeg_xl_is_read_with_alpha_and_all_bits() -> None:
    np.testing.assert_array_equal(decode(imagecodecs.jpegxl_encode(PHOTO, lossless=True)), PHOTO)
    grey = imagecodecs.jpegxl_encode(PHOTO[..., 0], lossless=True)
    np.testing.assert_array_equal(decode(grey), np.repeat(PHOTO[..., :1], 3, axis=2))
    np.testing.assert_array_equal(decode(grey, form=PixelForm(1)), PHOTO[..., :1])
    deep = imagecodecs.jpegxl_encode(PHOTO.astype(np.uint16) * 257, lossless=True)
    np.testing.assert_array_equal(decode(deep), PHOTO)
    alpha = np.dstack([PHOTO, np.where(PHOTO[..., 0] < 99, 0, 255).astype(np.uint8)])
    data = imagecodecs.jpegxl_encode(alpha, lossless=True)
    expected = np.where(alpha[..., 3:] == 0, 255, PHOTO)
    np.testing.assert_array_equal(decode(data, form=SHOWN), expected)
    for cut in (2, 3, 5, 12, len(data) // 2):
        with pytest.raises(UnreadableImage):
            decode(data[:cut])
