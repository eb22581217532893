"""Depth Rooms: the geometry agrees with the picture, and a room is a function of its number."""

from __future__ import annotations

import numpy as np
import pytest

from siamtransfer.evaluation.depth.data.rooms import DepthRooms
from siamtransfer.utils.errors import UserError


def test_a_room_depends_on_its_number_alone() -> None:
    few, many = DepthRooms("test", 48, 3), DepthRooms("test", 48, 9)
    assert np.array_equal(few.image(2), many.image(2))
    assert np.array_equal(few.depth(2), many.depth(2))
    assert not np.array_equal(few.image(1), few.image(2))
    assert not np.array_equal(few.image(1), DepthRooms("train", 48, 3).image(1))
    assert few.fingerprint == DepthRooms("test", 48, 3).fingerprint != many.fingerprint


def test_depths_are_those_of_a_room() -> None:
    for index in range(6):
        depth = DepthRooms("train", 96).depth(index)
        known = depth[depth > 0]
        assert 0.3 < known.min() < known.max() <= 8
        assert (depth == 0).sum() == 12 * 12  # the missing rectangle
        assert np.allclose(depth * 1000, np.round(depth * 1000), atol=2e-3)  # whole millimetres


def test_a_larger_picture_shows_the_same_room() -> None:
    small, large = (DepthRooms("train", size).depth(0) for size in (48, 96))
    both = (small > 0) & (large[::2, ::2] > 0)
    assert np.median(np.abs(small - large[::2, ::2])[both] / small[both]) < 0.03


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [(("val",), "no split 'val'"), (("train", 16), "32 to 512"), (("train", None, 0), "at least one room")],
)
def test_what_cannot_be_rendered_is_refused(arguments: tuple[object, ...], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        DepthRooms(*arguments)  # type: ignore[arg-type]
