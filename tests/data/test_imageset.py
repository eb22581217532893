"""Image sets in memory, their fingerprints, and the replacing and counting of unreadable images."""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from torch._utils import ExceptionWrapper

from siamtransfer.data.imageset import (
    ArrayImages,
    fingerprint_of_arrays,
    require_same_classes,
    require_same_images,
)
from siamtransfer.data.unreadable import ATTEMPTS, UnreadableImage, UnreadableImages, read_or_replace
from siamtransfer.utils.errors import UserError


class PartlyBad(ArrayImages):
    """N images of one pixel that is the index; those in `bad` cannot be read."""

    def __init__(self, size: int, bad: Iterable[int]):
        super().__init__(
            "partly-bad", "train", np.arange(size, dtype=np.uint8).repeat(3).reshape(size, 1, 1, 3)
        )
        self.bad = frozenset(bad)

    def image(self, index: int) -> np.ndarray:
        if index in self.bad:
            raise UnreadableImage(self.describe(index), "it is bad")
        return super().image(index)


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


def test_an_unreadable_image_survives_pickling_and_pytorchs_worker_processes() -> None:
    failure = UnreadableImage("folder/a because b.jpg", "it is empty")
    assert str(failure).startswith("cannot read the image folder/a because b.jpg because it is empty")
    copies: list[UnreadableImage] = [pickle.loads(pickle.dumps(failure))]
    try:
        raise failure
    except UnreadableImage:
        wrapped = ExceptionWrapper(where="in DataLoader worker process 0")
    with pytest.raises(UnreadableImage) as caught:
        wrapped.reraise()
    for copy in (*copies, caught.value):
        assert (copy.where, copy.why, str(copy)) == (failure.where, failure.why, str(failure))


def test_readable_images_are_never_replaced() -> None:
    images = PartlyBad(20, bad=[3])
    for index in set(range(20)) - {3}:
        image, used, failures = read_or_replace(images, index)
        assert (image.max(), used, failures) == (index, index, [])


def test_replacement_depends_on_the_index_only() -> None:
    images = PartlyBad(200, bad=range(0, 200, 2))
    states = random.getstate(), torch.get_rng_state()
    first = [read_or_replace(images, index)[1] for index in range(200)]
    assert random.getstate() == states[0] and torch.equal(torch.get_rng_state(), states[1])
    again = {index: read_or_replace(images, index)[1] for index in reversed(range(200))}
    assert first == [again[index] for index in range(200)]
    assert all(used % 2 for used in first)
    assert len({first[index] for index in images.bad}) > 50  # spread over the set, not the neighbour
    image, used, failures = read_or_replace(images, 0)
    assert image.max() == used
    assert failures[0].where == "partly-bad/train[0]" and len({failure.where for failure in failures}) == len(
        failures
    )


def test_replacement_is_fixed_for_ever() -> None:
    """Checkpoints of older versions go on with the same images: these figures may not change."""
    assert [read_or_replace(PartlyBad(100, bad=[index]), index)[1] for index in (0, 1, 99)] == [30, 78, 11]


def test_a_small_set_is_searched_to_its_last_image() -> None:
    for good in range(9):
        images = PartlyBad(9, bad=set(range(9)) - {good})
        assert [read_or_replace(images, index)[1] for index in range(9)] == [good] * 9


def test_replacement_gives_up_after_a_bounded_number_of_attempts() -> None:
    with pytest.raises(UserError, match=rf"partly-bad/train\[7\] and the {ATTEMPTS - 1} images .* it is bad"):
        read_or_replace(PartlyBad(250, bad=range(250)), 7)
    with pytest.raises(UserError, match="and the 2 images"):
        read_or_replace(PartlyBad(3, bad=range(3)), 0)


def test_tally_counts_distinct_files_and_stops_above_the_limit() -> None:
    tally = UnreadableImages(100, 0.02)
    assert tally.summary() == "" and tally.count == 0
    assert tally.add("a.jpg", "it is empty")
    assert not tally.add("a.jpg", "it is empty")
    assert tally.add("b.jpg", "it is truncated")
    assert tally.summary() == (
        "2 of 100 images (2.00%) could not be read: a.jpg (it is empty), b.jpg (it is truncated)"
    )
    with pytest.raises(UserError) as caught:
        tally.add("c.jpg", "it is empty")
    for part in ("3 of 100", "3.00%", "a.jpg", "c.jpg", "data.max_unreadable = 0.02"):
        assert part in str(caught.value)


def test_tally_limits_at_the_ends() -> None:
    with pytest.raises(UserError, match="1 of 1000000 images"):
        UnreadableImages(1_000_000, 0).add("a.jpg", "it is empty")
    everything = UnreadableImages(12, 1)
    for index in range(12):
        everything.add(f"{index}.jpg", "it is empty")
    assert "and 7 more" in everything.summary() and "5.jpg" not in everything.summary()
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(UserError, match=r"data\.max_unreadable"):
            UnreadableImages(10, share)


def test_another_set_of_images_than_the_checkpoints_is_refused_with_the_counts() -> None:
    images = PartlyBad(5, bad=[])
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
