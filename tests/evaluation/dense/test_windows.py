"""Windows of an image: where they lie, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from siamtransfer.evaluation.dense.input_size import MOST_PIXELS, InputSize, batches
from siamtransfer.evaluation.dense.windows import Place, Windows, choose_windows
from siamtransfer.utils.errors import UserError


@pytest.mark.parametrize(
    ("length", "side", "stride", "spans"),
    [
        (10, 4, 3, [(0, 4), (3, 7), (6, 10)]),
        (11, 4, 3, [(0, 4), (3, 7), (6, 10), (7, 11)]),  # the last one ends at the end
        (4, 4, 3, [(0, 4)]),
        (3, 4, 3, [(0, 3)]),  # a window is never larger than the image
        (8, 4, 4, [(0, 4), (4, 8)]),
    ],
)
def test_the_windows_of_a_length(length: int, side: int, stride: int, spans: list[tuple[int, int]]) -> None:
    places = Windows(side, stride).places(length, 2)
    assert [(p.top, p.bottom) for p in places] == spans
    assert {(p.left, p.right, p.height, p.width) for p in places} == {(0, 2, length, 2)}


@pytest.mark.parametrize(
    ("height", "width", "side", "stride"), [(7, 200, 7, 5), (33, 21, 16, 16), (5, 5, 3, 1)]
)
def test_every_pixel_is_in_a_window(height: int, width: int, side: int, stride: int) -> None:
    count = np.zeros((height, width), int)
    for place in Windows(side, stride).places(height, width):
        assert place.bottom - place.top == min(side, height) and place.right - place.left == min(side, width)
        count[place.top : place.bottom, place.left : place.right] += 1
    assert count.min() >= 1


def test_options_of_windows() -> None:
    assert choose_windows(None, None, 16, (224, 224), "net") is None
    assert choose_windows(100, None, 16, None, "net") == Windows(96, 64)
    assert choose_windows(512, None, 1, None, "net") == Windows(512, 341)  # mmsegmentation's for 512
    with pytest.raises(UserError, match="--stride 97 leaves gaps between windows of 96 pixels"):
        choose_windows(100, 97, 16, None, "net")
    with pytest.raises(UserError, match="give --window 224"):
        choose_windows(448, None, 4, (224, 224), "net")


def test_an_input_that_no_memory_holds_is_refused_by_name() -> None:
    class Strip:
        """One image of 1 x 200 pixels."""

        def __len__(self) -> int:
            return 1

        def image(self, index: int) -> np.ndarray:
            return np.zeros((1, 200, 3), np.uint8)

        def describe(self, index: int) -> str:
            return "strip.png"

    side = int((MOST_PIXELS / 200) ** 0.5)
    assert next(iter(batches(Strip(), [0], InputSize(4, False, 1), 1)))[2].shape == (1, 3, 4, 800)
    with pytest.raises(UserError, match=r"strip\.png has 200 x 1 pixels and would be seen at"):
        next(iter(batches(Strip(), [0], InputSize(side + 1, False, 1), 1)))


def test_a_whole_place() -> None:
    assert Place.whole(3, 4) == Place(0, 3, 0, 4, 3, 4)
