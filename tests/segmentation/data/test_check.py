"""All masks looked at before training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from support.mask_layouts import mask_of, write_mask, write_own

from siamtransfer.segmentation.data.check import MaskReport, check_masks
from siamtransfer.segmentation.data.masked_images import read_pair
from siamtransfer.segmentation.data.registry import open_segmentation
from siamtransfer.utils.errors import UserError

CLASSES = ["sky", "sea", "sand"]


def checked(root: Path, masks: list[np.ndarray], processes: int = 1) -> MaskReport:
    write_own(root, masks, CLASSES)
    return check_masks(open_segmentation("masks", root=root), processes=processes)


@pytest.mark.parametrize("processes", [1, 2])
def test_pixels_of_each_class_are_counted(tmp_path: Path, processes: int):
    report = checked(tmp_path, [mask_of([0, 1]), mask_of([1, 2]), mask_of([255, 0])], processes)
    assert report.pixels.tolist() == [192, 192, 96] and report.images.tolist() == [2, 2, 1]
    assert (report.ignored, report.checked, report.remarks) == (96, 3, [])


def test_rendered_sets_are_counted():
    images = open_segmentation("fashion-scenes", size=32, count=3)
    report = check_masks(images)
    assert report.pixels.sum() == 3 * 32 * 32 and report.images[0] == 3 and report.checked == 3
    assert "has no pixel of" in report.remarks[0]


def test_unknown_values_are_named_with_their_pixels_and_files(tmp_path: Path):
    with pytest.raises(UserError) as error:
        checked(tmp_path, [mask_of([0, 1]), mask_of([0, 7, 7, 9]), mask_of([7])])
    message = str(error.value)
    assert "2 of the 3 masks of masks/train, the first" in message and "1.png" in message
    assert "value 7 (288 pixels), value 9 (48 pixels)" in message and "0 to 2, 3 classes" in message


def test_one_mask_with_unknown_values_is_named_alone(tmp_path: Path):
    with pytest.raises(UserError, match=r"^the mask .*0\.png holds value 3 \(1 pixel\)"):
        mask = mask_of([0])
        mask[0, 0] = 3
        checked(tmp_path, [mask, mask_of([1])])


def test_masks_stretched_to_sixteen_bits(tmp_path: Path):
    with pytest.raises(UserError, match="multiples of 257, so the masks were stretched to 16 bits"):
        checked(tmp_path, [mask_of([0, 1, 2]).astype(np.uint16) * 257])


def test_all_ignored(tmp_path: Path):
    with pytest.raises(UserError, match=r"every pixel of all 2 masks .*0\.png\); check the class list"):
        checked(tmp_path, [mask_of([255]), mask_of([255])])


def test_a_mask_that_is_all_ignored_is_a_remark(tmp_path: Path):
    remarks = checked(tmp_path, [mask_of([255]), mask_of([0, 1, 2])]).remarks
    assert len(remarks) == 1 and "1 of 2 masks" in remarks[0] and "0.png" in remarks[0]


def test_a_class_without_pixels_is_a_remark(tmp_path: Path):
    remarks = checked(tmp_path, [mask_of([0, 2])]).remarks
    assert len(remarks) == 1 and "no pixel of 1 of its 3 classes (sea)" in remarks[0]


def test_foreground_that_is_the_ignored_value_is_explained(tmp_path: Path):
    remarks = checked(tmp_path, [mask_of([0, 255])]).remarks
    assert "if the ignored value means a class" in remarks[0]


def test_pairs_of_different_sizes_are_counted(tmp_path: Path):
    write_own(tmp_path, [mask_of([0]), mask_of([1])], CLASSES)
    for index in range(2):
        write_mask(tmp_path / f"masks/train/{index}.png", mask_of([0], (6, 8)))
    with pytest.raises(
        UserError, match=r"16 x 12 pixels and .* 8 x 6; make the mask anew.*\(2 of the 2 pairs"
    ):
        check_masks(open_segmentation("masks", root=tmp_path))


def turned_photo(folder: Path, orientation: int, mask: np.ndarray, side: int = 12) -> np.ndarray:
    """Writes an image of one's own, its stored pixels uint8[side,16,3] with this orientation, and a mask.
    Returns the mask as the image is shown, which marks the pixels that are bright."""
    write_own(folder, [mask], CLASSES)
    stored = np.zeros((side, 16), np.uint8)
    stored[1:4, 2:9] = 255
    exif = Image.Exif()
    exif[274] = orientation
    (folder / "images/train/0.jpg").unlink()
    Image.fromarray(stored).convert("RGB").save(folder / "images/train/0.png", exif=exif)
    with Image.open(folder / "images/train/0.png") as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("L")) // 255


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("drawn_on", ["shown", "stored"])
@pytest.mark.parametrize("reading", [None, "shown", "stored"])
def test_a_mask_is_turned_with_its_photo_whichever_way_it_was_drawn(
    tmp_path: Path, orientation: int, drawn_on: str, reading: str | None
):
    shown = turned_photo(tmp_path, orientation, mask_of([0]))
    stored = np.zeros((12, 16), np.uint8)
    stored[1:4, 2:9] = 1
    write_mask(tmp_path / "masks/train/0.png", shown if drawn_on == "shown" else stored)
    images = open_segmentation("masks", root=tmp_path, orientation=reading)
    assert check_masks(images).pixels.tolist() == [12 * 16 - 21, 21, 0]
    image, mask = read_pair(images, 0)
    assert image.shape[:2] == ((12, 16) if reading == "stored" else (16, 12))
    np.testing.assert_array_equal(mask, image[..., 0] // 255)


@pytest.mark.parametrize(("orientation", "side"), [(2, 12), (3, 12), (4, 12), (6, 16)])
def test_where_the_size_does_not_tell_how_a_mask_was_drawn_the_user_has_to_say_it(
    tmp_path: Path, orientation: int, side: int
):
    shown = turned_photo(tmp_path, orientation, mask_of([0], (side, 16)), side)
    write_mask(tmp_path / "masks/train/0.png", shown)
    for use in (check_masks, lambda images: images.mask(0)):
        with pytest.raises(
            UserError, match=rf"0\.png has the EXIF orientation {orientation}, which keeps .*"
        ):
            use(open_segmentation("masks", root=tmp_path))
    images = open_segmentation("masks", root=tmp_path, orientation="shown")
    check_masks(images)
    image, mask = read_pair(images, 0)
    np.testing.assert_array_equal(mask, image[..., 0] // 255)


def test_a_mask_that_fits_neither_way_is_named(tmp_path: Path):
    turned_photo(tmp_path, 6, mask_of([0]))
    write_mask(tmp_path / "masks/train/0.png", mask_of([0], (11, 16)))
    with pytest.raises(UserError, match=r"0\.png has 12 x 16 pixels and .* has 16 x 11"):
        check_masks(open_segmentation("masks", root=tmp_path))


def test_colours_and_damage_are_named(tmp_path: Path):
    write_own(tmp_path, [mask_of([0, 1])], CLASSES)
    Image.fromarray(mask_of([0, 1])).convert("RGB").save(tmp_path / "masks/train/0.png")
    with pytest.raises(UserError, match="look like those of a palette"):
        check_masks(open_segmentation("masks", root=tmp_path))
    write_mask(tmp_path / "masks/train/0.png", mask_of([0, 1]))
    (tmp_path / "images/train/0.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"cannot read the image .*0\.jpg"):
        check_masks(open_segmentation("masks", root=tmp_path))


def test_a_part_is_checked(tmp_path: Path):
    write_own(tmp_path, [mask_of([0, 1, 2])] * 5, CLASSES)
    assert check_masks(open_segmentation("masks", root=tmp_path), at_most=2).checked == 2
