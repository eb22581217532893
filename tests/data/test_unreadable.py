"""Unreadable images: the error in worker processes, the replacement, the count and its limit."""

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


def test_distinct_files_are_counted_and_stop_the_run_above_the_limit() -> None:
    unreadable = UnreadableImages(100, 0.02)
    assert unreadable.summary() == "" and unreadable.count == 0
    assert unreadable.add("a.jpg", "it is empty")
    assert not unreadable.add("a.jpg", "it is empty")
    assert unreadable.add("b.jpg", "it is truncated")
    assert unreadable.summary() == (
        "2 of 100 images (2.00%) could not be read: a.jpg (it is empty), b.jpg (it is truncated)"
    )
    with pytest.raises(UserError) as caught:
        unreadable.add("c.jpg", "it is empty")
    for part in ("3 of 100", "3.00%", "a.jpg", "c.jpg", "data.max_unreadable = 0.02"):
        assert part in str(caught.value)


def test_limits_of_none_and_of_all_images() -> None:
    with pytest.raises(UserError, match="1 of 1000000 images"):
        UnreadableImages(1_000_000, 0).add("a.jpg", "it is empty")
    everything = UnreadableImages(12, 1)
    for index in range(12):
        everything.add(f"{index}.jpg", "it is empty")
    assert "and 7 more" in everything.summary() and "5.jpg" not in everything.summary()
    for limit in (-0.1, 1.1, float("nan")):
        with pytest.raises(UserError, match=r"data\.max_unreadable"):
            UnreadableImages(10, limit)
