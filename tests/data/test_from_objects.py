"""Sets made from a torch Dataset, a list or an array: the same pixels, labels and classes, by content."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, TensorDataset
from torchvision import datasets
from torchvision.transforms import v2

from siamtransfer.data.from_objects import from_array, from_images, from_torch
from siamtransfer.data.imageset import ImageSet
from siamtransfer.data.unreadable import UnreadableImage
from siamtransfer.features.extract import Transform, extract_pixels
from siamtransfer.utils.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 5, 3), dtype=np.uint8)
LABELS = [2, 0, 1, 1, 0, 2]


class Items(Dataset[Any]):
    """A Dataset that counts how often an item was read."""

    def __init__(self, items: list[Any]):
        self.items, self.reads = items, 0

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        self.reads += 1
        return self.items[index]


def pairs(images: list[Any]) -> Items:
    return Items(list(zip(images, LABELS, strict=True)))


CHANNELS_FIRST = torch.from_numpy(PIXELS).permute(0, 3, 1, 2)
FORMS: dict[str, list[Any]] = {
    "pil": [Image.fromarray(pixels) for pixels in PIXELS],
    "array": list(PIXELS),
    "tensor uint8": list(CHANNELS_FIRST),
    "tensor float": list(CHANNELS_FIRST / 255),
    "tensor float16": list((CHANNELS_FIRST / 255).half()),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_dataset_has_the_pixels_and_labels_of_its_items(form: str) -> None:
    images = from_torch(pairs(FORMS[form]), name="mine", split="test")
    assert (images.name, images.split, len(images)) == ("mine", "test", 6)
    for index in range(6):
        image = images.image(index)
        assert image.dtype == np.uint8 and image.flags.c_contiguous and image.flags.writeable
        assert np.array_equal(image, PIXELS[index])
    assert images.labels is not None and images.labels.dtype == np.int64
    assert images.labels.tolist() == LABELS
    assert images.classes == ("0", "1", "2")
    assert images.image_size == 5
    assert images.describe(3) == "mine/test[3]"
    assert images.fingerprint == from_torch(pairs(FORMS["pil"])).fingerprint


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(PIXELS[0, :, :, 0]),
        PIXELS[0, :, :, 0],
        PIXELS[0, :, :, :1],
        CHANNELS_FIRST[0, :1],
        CHANNELS_FIRST[0, :1] / 255,
    ],
    ids=["pil", "array", "array of one channel", "tensor uint8", "tensor float"],
)
def test_grey_images_have_their_value_in_three_channels(image: Any) -> None:
    assert np.array_equal(from_torch(Items([image])).image(0), np.repeat(PIXELS[0, :, :, :1], 3, axis=2))


def test_a_dataset_without_labels_has_none() -> None:
    images = from_torch(Items(FORMS["pil"]))
    assert images.labels is None
    assert images.classes == ()


def test_torchs_and_torchvisions_own_datasets(shapes_folder: Path) -> None:
    tensors = from_torch(TensorDataset(CHANNELS_FIRST, torch.tensor(LABELS)))
    assert tensors.labels is not None and tensors.labels.tolist() == LABELS
    folder = from_torch(datasets.ImageFolder(str(shapes_folder)))
    assert folder.classes == ("left", "upper")
    assert folder.labels is not None and folder.labels.tolist() == [0] * 20 + [1] * 20
    as_tensors = datasets.ImageFolder(
        str(shapes_folder), v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    )
    assert from_torch(as_tensors).fingerprint == folder.fingerprint
    normalised = datasets.ImageFolder(
        str(shapes_folder),
        v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.2] * 3)]),
    )
    with pytest.raises(UserError, match=r"image 0 of dataset/train has values from -.*looks normalised"):
        from_torch(normalised).image(0)


def test_targets_spare_the_reading_of_the_images() -> None:
    items = pairs(FORMS["pil"])
    items.targets = torch.tensor(LABELS)  # type: ignore[attr-defined]
    images = from_torch(items)
    assert items.reads == 1, "one item shows whether there are labels"
    assert images.labels is not None and images.labels.tolist() == LABELS
    assert images.fingerprint == images.fingerprint and images.image_size == 5
    assert items.reads == 7, "the fingerprint and the size read every image once"


def test_a_set_of_a_dataset_goes_to_worker_processes() -> None:
    images = from_torch(pairs(FORMS["pil"]))
    pixels = extract_pixels(images, Transform(5, None, (0.0,) * 3, (1.0,) * 3), workers=2)
    assert torch.equal(pixels, CHANNELS_FIRST.flatten(1) / 255)


def fingerprints() -> list[str]:
    changed = PIXELS.copy()
    changed[5, 4, 4, 2] ^= 1
    turned = [Image.fromarray(pixels) for pixels in PIXELS[::-1]]
    return [
        from_torch(pairs(FORMS["pil"])).fingerprint,
        from_torch(pairs([Image.fromarray(pixels) for pixels in changed])).fingerprint,
        from_torch(pairs(turned)).fingerprint,
        from_torch(pairs(FORMS["pil"]), classes=["a", "b", "c"]).fingerprint,
        from_torch(Items(FORMS["pil"])).fingerprint,
        from_torch(Items([(image, 0) for image in FORMS["pil"]])).fingerprint,
        from_array(PIXELS).fingerprint,
        from_array(changed).fingerprint,
        from_array(PIXELS, LABELS).fingerprint,
    ]


def test_the_fingerprint_changes_with_a_pixel_a_label_a_class_and_the_order() -> None:
    assert len(set(fingerprints())) == 9
    assert fingerprints() == fingerprints()


def test_a_list_of_images_and_one_of_their_files_are_the_same_set(tmp_path: Path) -> None:
    paths = []
    for index, image in enumerate(FORMS["pil"]):
        paths.append(tmp_path / f"{index}.png")
        image.save(paths[-1])
    images, files = from_images(FORMS["pil"], LABELS), from_images([str(paths[0]), *paths[1:]], LABELS)
    assert images.fingerprint == files.fingerprint
    for index in range(6):
        assert np.array_equal(images.image(index), PIXELS[index])
        assert np.array_equal(files.image(index), PIXELS[index])
    assert images.describe(2) == "images/train[2]"
    assert files.describe(2) == str(paths[2])
    assert images.labels is not None and images.labels.tolist() == LABELS


def test_files_are_read_when_they_are_used(tmp_path: Path) -> None:
    FORMS["pil"][0].save(tmp_path / "0.png")
    (tmp_path / "1.png").write_bytes(b"nothing")
    images = from_images([tmp_path / "0.png", tmp_path / "1.png"])
    assert np.array_equal(images.image(0), PIXELS[0])
    with pytest.raises(UnreadableImage, match=r"1\.png"):
        images.image(1)
    assert len(images.fingerprint) == 64
    assert images.image_size is None


def test_names_as_labels_are_numbered_in_sorted_order() -> None:
    images = from_images(FORMS["pil"][:3], ["cat", "ant", "cat"])
    assert images.classes == ("ant", "cat")
    assert images.labels is not None and images.labels.tolist() == [1, 0, 1]


def test_images_of_several_sizes_have_no_common_size() -> None:
    assert from_images([Image.new("RGB", (4, 4)), Image.new("RGB", (5, 5))]).image_size is None
    assert from_images([Image.new("RGB", (4, 5))]).image_size is None
    assert from_images([Image.new("RGB", (4, 4))]).image_size == 4


def test_an_array_is_a_set() -> None:
    images: ImageSet = from_array(PIXELS, np.array(LABELS))
    assert np.array_equal(images.image(4), PIXELS[4])
    assert (images.image_size, images.classes) == (5, ("0", "1", "2"))
    grey = from_array(PIXELS[..., 0])
    assert np.array_equal(grey.image(4), np.repeat(PIXELS[4, :, :, :1], 3, axis=2))
    assert pickle.loads(pickle.dumps(images)).fingerprint == images.fingerprint


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: from_torch(Items([])), "dataset/train holds no images"),
        (lambda: from_torch(Items([(FORMS["pil"][0], "cat")])), "label 0 of dataset/train is 'cat', a str"),
        (lambda: from_torch(Items([(FORMS["pil"][0], 1.5)])), "label 0 of .* is 1.5, a float"),
        (lambda: from_torch(Items([(FORMS["pil"][0], -1)])), "label 0 of .* must be an integer from 0"),
        (lambda: from_torch(pairs(FORMS["pil"]), classes=["a", "b"]), "the label 2 and only 2 class names"),
        (lambda: from_torch(Items([3])).image(0), "image 0 of dataset/train is of type int"),
        (lambda: from_torch(Items([CHANNELS_FIRST[0] * 1.0])).image(0), "values from .* looks normalised"),
        (lambda: from_torch(Items([CHANNELS_FIRST[0] / 255 * np.nan])).image(0), "looks normalised"),
        (lambda: from_torch(Items([torch.zeros(5, 5, 3)])).image(0), r"tensor of shape \[5, 5, 3\]"),
        (lambda: from_torch(Items([PIXELS[0] / 255])).image(0), r"is float64\[5, 5, 3\]"),
        (lambda: from_torch(Items([PIXELS])).image(0), r"is uint8\[6, 5, 5, 3\]"),
        (lambda: from_images([]), "images/train holds no images"),
        (lambda: from_images([PIXELS[0]]), "entry 0 of the list is a ndarray"),
        (lambda: from_images(FORMS["pil"], [0, 1]), "has 6 images and 2 labels"),
        (lambda: from_images(FORMS["pil"][:2], [0, "a"]), "label 1 of images/train is 'a', a str"),
        (lambda: from_array(PIXELS / 255), r"the array is float64\[6, 5, 5, 3\]"),
        (lambda: from_array(PIXELS.transpose(0, 3, 1, 2)), r"the array is uint8\[6, 3, 5, 5\]"),
        (lambda: from_array(PIXELS[:0]), "holds no images"),
        (lambda: from_array(PIXELS, [0]), "has 6 images and 1 labels"),
    ],
)  # fmt: skip
def test_what_is_no_image_or_label_is_refused_in_one_sentence(make: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()
