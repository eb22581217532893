"""The numbers of versions, against formulas; ImageNet-C's and ImageNet-V2's layouts through the evaluator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from siamtransfer.data.shifted_sets import CLASSES, PUBLISHED_CORRUPTIONS
from siamtransfer.evaluation.robustness.scores import ALEXNET, Versions, score_set
from siamtransfer.programs.robustness import main as robustness
from siamtransfer.records.predictions import read_record
from siamtransfer.records.sample_values import SampleValues
from siamtransfer.utils.errors import UserError

COUNT = 1_000_000


def share_right(share: float) -> np.ndarray:
    return np.arange(COUNT) < round(share * COUNT)


def test_alexnet_itself_has_a_mean_corruption_error_of_100() -> None:
    right = {
        (name, severity): share_right(1 - ALEXNET[name])
        for name in PUBLISHED_CORRUPTIONS
        for severity in range(1, 6)
    }
    assert Versions("imagenet-c", right).mean_corruption_error() == pytest.approx(100, abs=1e-3)
    right.pop(("frost", 4))
    assert Versions("imagenet-c", right).mean_corruption_error() is None


def test_error_is_averaged_over_severities_before_it_is_divided() -> None:
    all_right = np.ones(100, bool)
    right = {(name, severity): all_right for name in PUBLISHED_CORRUPTIONS for severity in range(1, 6)}
    right["fog", 5] = ~all_right
    expected = 100 * (1 / 5) / ALEXNET["fog"] / 15
    assert Versions("imagenet-c", right).mean_corruption_error() == pytest.approx(expected)


def test_intervals_of_means_hold_what_they_promise() -> None:
    """Means over versions of images that are right or wrong together scatter as images do."""
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(50):
        together = generator.random(400) < 0.6
        right = {("fog", severity): together for severity in (1, 3)}
        metrics = Versions("corrupted", right).metrics()
        low, high = (metrics[f"robustness/corrupted/mean/ci95_{end}"] for end in ("low", "high"))
        covered += low <= 60 <= high
    assert 43 <= covered <= 50


def test_masked_classes_and_classes_unknown_to_train() -> None:
    scores = torch.tensor([[-torch.inf, 1.0, 0.0], [-torch.inf, 0.0, 3.0], [-torch.inf, 2.0, 0.0]])
    scored = score_set("set", scores, torch.tensor([4, 9, 5]), torch.tensor([2, 4, 9]))
    assert scored.right.tolist() == [True, True, False]  # 5 is no class of train
    assert scored.metrics["robustness/set/top1"] == pytest.approx(200 / 3)
    expected = 1 / (1 + np.exp(-1.0)), 1 / (1 + np.exp(-3.0))
    np.testing.assert_allclose(scored.predictions.confidences["set"][:2], expected, rtol=1e-6)


WORDNET = [f"n{1440764 + 3 * number:08d}" for number in range(12)]


def fill(root: Path, folders: list[str], seed: int) -> None:
    """An image of its own in each folder; the same in every version of it."""
    for folder in folders:
        (root / folder).mkdir(parents=True)
        generator = np.random.default_rng([seed, *Path(folder).name.encode()])
        pixels = generator.integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / folder / "a.JPEG", "PNG")


@pytest.fixture
def imagenet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve classes instead of a thousand: train, val, V2, and two corruptions of val."""
    monkeypatch.setitem(CLASSES, "imagenet-v2", 12)
    fill(tmp_path, [f"set/{part}/{name}" for part in ("train", "val") for name in WORDNET], 0)
    fill(tmp_path, [f"v2/{number}" for number in range(12)], 1)
    for folder in ("c/weather/fog/1", "c/weather/fog/5", "c/digital/contrast/1", "c/digital/contrast/5"):
        fill(tmp_path, [f"{folder}/{name}" for name in WORDNET], 0)
    return tmp_path


def options(imagenet: Path) -> list[str]:
    root = ["--data.name=imagenet", f"--data.root={imagenet / 'set'}", "--data.workers=0"]
    return ["pixels", *root, "--crop=24", "--resize=24", "--device=cpu", "--strengths=1"]


def test_published_layouts(imagenet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = imagenet / "out.json"
    sets = [f"imagenet-v2={imagenet / 'v2'}", f"imagenet-c={imagenet / 'c'}"]
    record = robustness([*options(imagenet), "--severities", "1", "5", "--shifted", *sets, f"--record={out}"])
    assert record is not None
    metrics = record["metrics"]
    assert metrics["robustness/clean/top1"] == 100  # val holds the images of train
    for name in ("mean", "fog/severity=5", "contrast/severity=1"):
        assert metrics[f"robustness/imagenet-c/{name}/top1"] == 100
    assert "robustness/imagenet-c/mCE" not in metrics
    assert "mCE is not computed" in capsys.readouterr().err
    versions = read_record(imagenet / "out.imagenet-c.json")
    assert isinstance(versions.predictions, SampleValues)
    assert len(versions.predictions.settings) == 5  # two corruptions at two severities, and the mean
    second = read_record(imagenet / "out.imagenet-v2.json")
    assert "folders of imagenet-v2 are numbers" in second.record["provenance"]["set_remarks"][0]
    assert second.predictions.labels.tolist() == sorted(range(12), key=str)  # type: ignore[union-attr]


def test_versions_that_are_not_of_the_same_images_are_refused(imagenet: Path) -> None:
    (imagenet / "c" / "weather" / "fog" / "1" / WORDNET[3] / "a.JPEG").unlink()
    with pytest.raises(UserError, match="are no versions of the same images"):
        robustness([*options(imagenet), "--severities=1", "--shifted", f"imagenet-c={imagenet / 'c'}"])


def test_numbers_mean_nothing_beside_other_classes(imagenet: Path) -> None:
    for part in ("train", "val"):
        (imagenet / "set" / part / WORDNET[3] / "a.JPEG").unlink()
    with pytest.raises(UserError, match=r"the classes of imagenet-v2 are numbers, .* and imagenet has 11"):
        robustness([*options(imagenet), "--shifted", f"imagenet-v2={imagenet / 'v2'}"])
