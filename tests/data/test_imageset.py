"""Image sets in memory, their fingerprints, and checks that two sets are the same."""

from __future__ import annotations

import numpy as np
import pytest

from siamtransfer.data.imageset import (
    ArrayImages,
    fingerprint_of_arrays,
    require_same_classes,
    require_same_images,
)
from siamtransfer.utils.errors import UserError


def test_array_images_repeat_grey_and_copy() -> None:
    grey = ArrayImages("grey", "test", np.arange(24, dtype=np.uint8).reshape(2, 3, 4), np.array([1, 0]), "ab")
    image = grey.image(1)
    assert image.shape == (3, 4, 3) and image.dtype == np.uint8 and image.flags.c_contiguous
    assert (image == np.arange(12, 24).reshape(3, 4, 1)).all()
    image[:] = 0
    assert grey.image(1).max() == 23
    assert grey.image_size is None and grey.classes == ("a", "b") and grey.labels is not None
    assert grey.labels.dtype == np.int64 and len(grey) == 2 and grey.describe(1) == "grey/test[1]"
    chw = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 5), dtype=np.uint8)
    turned = ArrayImages("turned", "train", chw.transpose(0, 2, 3, 1))
    assert turned.image_size == 5 and turned.image(0).flags.c_contiguous
    assert (turned.image(0) == chw[0].transpose(1, 2, 0)).all()


def test_fingerprint_depends_on_content_type_and_shape_but_not_on_memory_layout() -> None:
    values = np.random.default_rng(0).integers(0, 256, (9000, 2, 3), dtype=np.uint8)
    base = fingerprint_of_arrays(values, None, text="ab")
    assert base == fingerprint_of_arrays(np.asfortranarray(values), None, text="ab") and len(base) == 64
    changed = values.copy()
    changed[8999, 1, 2] ^= 1
    others = [
        fingerprint_of_arrays(changed, None, text="ab"),
        fingerprint_of_arrays(values.reshape(9000, 3, 2), None, text="ab"),
        fingerprint_of_arrays(values.astype(np.int8), None, text="ab"),
        fingerprint_of_arrays(values, text="ab"),
        fingerprint_of_arrays(None, values, text="ab"),
        fingerprint_of_arrays(values, None, text="ba"),
    ]
    assert len({base, *others}) == 7


def test_another_set_of_images_than_the_checkpoints_is_refused_with_the_counts() -> None:
    images = ArrayImages("partly-bad", "train", np.zeros((5, 1, 1, 3), np.uint8))
    require_same_images(images, fingerprint=images.fingerprint, count=5)
    with pytest.raises(UserError, match=r"partly-bad/train .* \(7 then and 5 now\)"):
        require_same_images(images, fingerprint="0" * 64, count=7)
    with pytest.raises(UserError, match="5 as before, but with other"):
        require_same_images(images, fingerprint="0" * 64, count=5)


def test_sets_with_other_classes_are_refused_by_name() -> None:
    pixels = np.zeros((1, 1, 1, 3), np.uint8)
    train = ArrayImages("pets", "train", pixels, np.zeros(1), ["cat", "dog"])
    require_same_classes(train, ArrayImages("pets", "test", pixels, np.zeros(1), ["cat", "dog"]))
    with pytest.raises(UserError, match="only train has dog; only test has cow"):
        require_same_classes(train, ArrayImages("pets", "test", pixels, np.zeros(1), ["cat", "cow"]))
    with pytest.raises(UserError, match="order"):
        require_same_classes(train, ArrayImages("pets", "test", pixels, np.zeros(1), ["dog", "cat"]))
