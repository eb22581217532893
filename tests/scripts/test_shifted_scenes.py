"""The shifted scenes: folders a class, equal files for equal arguments, and the shift that is asked for."""

from pathlib import Path

import numpy as np
import pytest
import shifted_scenes
from PIL import Image

from siamtransfer.data.labelled import open_labelled
from siamtransfer.data.scenes.scenes import FashionScenes


def test_noisy_scenes_of_another_seed(tmp_path: Path) -> None:
    for name in ("one", "two"):
        shifted_scenes.main([str(tmp_path / name), "--noise", "20", "--train", "40", "--test", "10"])
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.png"))
    assert len(files) == 50
    assert all((tmp_path / "one" / f).read_bytes() == (tmp_path / "two" / f).read_bytes() for f in files)
    train, test = open_labelled("folder", root=tmp_path / "one")
    assert test is not None and (len(train), len(test)) == (40, 10)
    plain = FashionScenes("train", 32, 40, 1)
    first = np.asarray(Image.open(next((tmp_path / "one" / "train").rglob("00003.png")))).astype(int)
    difference = first - plain.pixels[3]
    inner = difference[(plain.pixels[3] > 80) & (plain.pixels[3] < 175)]  # nothing is clipped there
    assert abs(inner.mean()) < 3 and abs(inner.std() - 20) < 3


def shifted(tmp_path: Path, *words: str) -> np.ndarray:
    """Train images int[10,32,32,3] of a shift, by number."""
    shifted_scenes.main([str(tmp_path / "new"), *words, "--train", "10", "--test", "10"])
    files = sorted((tmp_path / "new" / "train").rglob("*.png"), key=lambda path: path.name)
    return np.stack([np.asarray(Image.open(path)) for path in files]).astype(int)


def test_without_a_shift_they_are_other_scenes(tmp_path: Path) -> None:
    images = shifted(tmp_path)
    assert (images == FashionScenes("train", 32, 10, 1).pixels).all()
    assert (images != FashionScenes("train", 32, 10, 0).pixels).any()


def test_a_quarter_turn_moves_the_upper_right_corner_to_the_upper_left(tmp_path: Path) -> None:
    images, plain = shifted(tmp_path, "--turn", "1"), FashionScenes("train", 32, 10, 1).pixels
    assert (images[:, 0, 0] == plain[:, 0, 31]).all() and (images[:, 31, 0] == plain[:, 0, 0]).all()
    assert (images.sum(axis=(1, 2)) == plain.sum(axis=(1, 2))).all()


def test_values_are_inverted_and_then_come_nearer_to_grey(tmp_path: Path) -> None:
    images = shifted(tmp_path, "--invert", "--contrast", "0.2")
    plain = FashionScenes("train", 32, 10, 1).pixels.astype(float)
    assert abs(images - (127.5 + 0.2 * (127.5 - plain))).max() <= 0.5 + 1e-9


def test_blur_is_a_gaussian_of_that_width(tmp_path: Path) -> None:
    images, plain = shifted(tmp_path, "--blur", "1.5"), FashionScenes("train", 32, 10, 1).pixels
    distance = np.arange(-6, 7)
    kernel = np.exp(-(distance**2) / (2 * 1.5**2))
    weights = np.outer(kernel, kernel) / kernel.sum() ** 2
    windows = np.lib.stride_tricks.sliding_window_view(plain, (13, 13), axis=(1, 2))
    wanted = (windows * weights).sum(axis=(-2, -1))  # where the window lies within the image
    assert abs(images[:, 6:-6, 6:-6] - wanted).mean() < 1  # Pillow approximates it by three box filters


def test_wrong_arguments(tmp_path: Path) -> None:
    for words, sentence in (
        ([str(tmp_path)], "is there already"),
        ([str(tmp_path / "new"), "--noise", "-1"], "--noise must be 0 to 255"),
        ([str(tmp_path / "new"), "--noise", "nan"], "--noise must be 0 to 255"),
        ([str(tmp_path / "new"), "--blur", "-1"], "--blur 0 to 32"),
        ([str(tmp_path / "new"), "--contrast", "0"], "--contrast must be above 0"),
        ([str(tmp_path / "new"), "--test", "3"], "at least 10"),
    ):
        with pytest.raises(SystemExit, match=sentence):
            shifted_scenes.main(words)
    assert list(tmp_path.iterdir()) == []
