"""Videos of embedded objects: the same on every call, with masks that are exact and objects that move."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from siamtransfer.data.scenes.videos import VideoCounts, moving_objects, turned_back, write_davis
from siamtransfer.utils.errors import UserError

COUNTS = VideoCounts(size=48, frames=6)


def test_frames_are_a_function_of_seed_split_and_index() -> None:
    first, again = (list(moving_objects("test", 2, COUNTS)) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    longer = list(moving_objects("test", 2, VideoCounts(size=48, frames=9)))
    assert np.array_equal(longer[5][0], first[5][0])
    assert not np.array_equal(next(moving_objects("test", 3, COUNTS))[0], first[0][0])


def test_objects_move_with_their_pixels_and_nothing_else_does() -> None:
    for index in range(4):
        frames = list(moving_objects("test", index, COUNTS))
        objects = set(np.unique(frames[0][1]).tolist()) - {0}
        assert objects == set(range(1, len(objects) + 1)) and objects
        never = np.all([mask == 0 for _, mask in frames], axis=0)
        for image, _ in frames[1:]:
            assert np.array_equal(image[never], frames[0][0][never])
        front = max(objects)  # nothing passes before the last object
        colours = [np.sort(image[mask == front].view("u1,u1,u1").ravel()) for image, mask in frames]
        assert all(np.array_equal(each, colours[0]) for each in colours)
        assert len({(mask == front).tobytes() for _, mask in frames}) > 1


def test_speed_zero_is_a_still_video() -> None:
    frames = list(moving_objects("test", 0, VideoCounts(size=48, frames=4, speed=0)))
    assert all(np.array_equal(image, frames[0][0]) for image, _ in frames)


def test_places_turn_back_at_both_ends() -> None:
    places = [turned_back(float(x), -2, 3) for x in range(-4, 10)]
    assert places == [0, -1, -2, -1, 0, 1, 2, 3, 2, 1, 0, -1, -2, -1]
    assert turned_back(7.0, 0, 0) == 0


def test_the_folders_are_those_of_davis(tmp_path: Path) -> None:
    write_davis(tmp_path / "davis", VideoCounts(train=1, test=1, size=32, frames=3))
    assert (tmp_path / "davis/ImageSets/2017/val.txt").read_text() == "test-000\n"
    mask = Image.open(tmp_path / "davis/Annotations/480p/test-000/00002.png")
    assert mask.mode == "P" and mask.getpalette()[3:6] == [128, 0, 0]  # type: ignore[index]
    assert Image.open(tmp_path / "davis/JPEGImages/480p/train-000/00000.jpg").size == (32, 32)
    with pytest.raises(UserError, match="not an empty folder"):
        write_davis(tmp_path / "davis", VideoCounts())


def test_counts_out_of_range_are_refused() -> None:
    with pytest.raises(UserError, match="--frames of videos is 2, but must be from 3"):
        VideoCounts(frames=2)
