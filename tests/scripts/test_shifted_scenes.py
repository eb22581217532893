"""The noisy scenes: folders a class, equal files for equal arguments, and as much noise as is asked for."""

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


def test_wrong_arguments(tmp_path: Path) -> None:
    for words, sentence in (
        ([str(tmp_path)], "is there already"),
        ([str(tmp_path / "new"), "--noise", "-1"], "--noise must be at least 0"),
        ([str(tmp_path / "new"), "--test", "3"], "at least 10"),
    ):
        with pytest.raises(SystemExit, match=sentence):
            shifted_scenes.main(words)
    assert list(tmp_path.iterdir()) == []
