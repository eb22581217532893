"""The program `outside`: its record, the records beside it, what stays the same, and wrong words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from siamtransfer.data import open_images
from siamtransfer.evaluation.outside.detectors import SCORES
from siamtransfer.programs.linear import main as linear
from siamtransfer.programs.outside import main as outside
from siamtransfer.records.comparison import compare
from siamtransfer.records.meanings import meaning_of
from siamtransfer.records.predictions import Predictions, read_record
from siamtransfer.records.sample_values import SampleValues
from siamtransfer.utils.errors import UserError

SCENES = ["--data.name", "fashion-scenes", "--data.size", "16", "--data.count", "120", "--device", "cpu"]
SOURCE = ["random:resnet18:width=4:stem=small", *SCENES]


def write_features(path: Path, x: np.ndarray, y: np.ndarray | None) -> str:
    np.savez(path, features=x.astype(np.float32), **({} if y is None else {"labels": y}))
    return str(path)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Four classes on the axes, a fifth in the middle; unknown images far away, and more of the same."""
    folder, generator = tmp_path_factory.mktemp("features"), np.random.default_rng(0)

    def draw(count: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
        y = np.arange(count) % classes
        return 4 * np.eye(5, 8)[y] * (y < 4)[:, None] + generator.normal(0, 0.7, (count, 8)), y

    train, test, same = draw(200, 5), draw(150, 5), draw(60, 4)
    arrays = {
        "train": train,
        "test": test,
        "same": same,
        "far": (generator.normal(0, 9, (70, 8)), None),  # unknown images need no labels
        "narrow": (np.ones((4, 3)), np.zeros(4, int)),
    }
    return {name: write_features(folder / f"{name}.npz", *each) for name, each in arrays.items()}


def measured(*words: object) -> dict[str, Any]:
    record: dict[str, Any] = outside([str(word) for word in (*words, "--resamples", 100)])
    return record


@pytest.fixture(scope="module")
def record(files: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    out = tmp_path_factory.mktemp("record") / "a.json"
    sets = [f"far={files['far']}", f"same={files['same']}"]
    words = [*known(files), "--outside", *sets, "--hold-out", 4, "--k", 5, "--record", out]
    return measured(*words), out


def known(files: dict[str, str]) -> list[str]:
    return ["--train-features", files["train"], "--test-features", files["test"], "--strengths", "0.1", "1"]


def test_what_is_far_is_told_and_the_same_is_not(record: tuple[dict[str, Any], Path]) -> None:
    metrics = record[0]["metrics"]
    for score in SCORES:
        assert 35 < metrics[f"outside/same/{score}/auroc"] < 65
    for score in ("mahalanobis", "vim"):
        assert metrics[f"outside/far/{score}/auroc"] > 95
        assert metrics[f"outside/far/{score}/fpr95"] < 20
    for score in ("msp", "energy", "mahalanobis"):
        assert metrics[f"outside/held-out/{score}/auroc"] > 85
    mean = np.mean([metrics[f"outside/{name}/knn/auroc"] for name in ("far", "same", "held-out")])
    assert metrics["outside/mean/knn/auroc"] == pytest.approx(mean)
    assert [name for name in metrics if meaning_of(name) is None] == []
    assert any("chosen on 16 held-out images" in remark for remark in record[0]["protocol"]["remarks"])


def test_the_records_beside_it_hold_a_value_an_image(record: tuple[dict[str, Any], Path]) -> None:
    document, out = record
    main = read_record(out)
    assert isinstance(main.predictions, Predictions)
    assert len(main.predictions) == 120, "test images without the held-out class"
    top1 = 100 * (main.predictions.labels == main.predictions.settings["linear"]).mean()
    assert document["metrics"]["outside/linear/top1"] == pytest.approx(top1)
    assert main.predictions.confidences["linear"].max() <= 1
    for name, images in (("far", 70), ("same", 60), ("held-out", 30)):
        each = read_record(out.with_name(f"a.{name}.json"))
        assert each.record["protocol"]["measured_set"] == name
        assert list(each.record["protocol"]["outside"]) == [name]
        assert isinstance(each.predictions, SampleValues)
        assert len(each.predictions) == images + 120
        assert each.predictions.sides is not None
        for score, shares in each.predictions.settings.items():
            auroc = document["metrics"][f"outside/{name}/{score}/auroc"]
            assert 100 * shares[:images].mean() == pytest.approx(auroc), "of unknown images"
            assert 100 * shares[images:].mean() == pytest.approx(auroc), "of known ones"
            assert each.predictions.sides.tolist() == [0] * images + [1] * 120
        own = {key for key in document["metrics"] if key.startswith(f"outside/{name}/")}
        assert set(each.record["metrics"]) == own


def test_two_backbones_are_compared_on_a_set(
    record: tuple[dict[str, Any], Path], files: dict[str, str], tmp_path: Path
) -> None:
    _, out = record
    sets = [f"far={files['far']}", f"same={files['same']}"]
    again = tmp_path / "b.json"
    measured(*known(files), "--outside", *sets, "--hold-out", 4, "--k", 5, "--record", again)
    for name in ("a", "b"):
        assert json.loads((out if name == "a" else again).read_text())["metrics"] == record[0]["metrics"]
    same = compare(out.with_name("a.far.json"), again.with_name("b.far.json"), setting="knn", resamples=50)
    assert same.differences["mean"].value == 0


def write_scenes(root: Path) -> list[str]:
    """100 train and 60 test scenes as class folders; the options that open them."""
    for split, count in (("train", 100), ("test", 60)):
        images = open_images("fashion-scenes", split=split, size=16, count=count)
        assert images.labels is not None
        for index in range(count):
            folder = root / split / images.classes[images.labels[index]].replace("/", "-")
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images.image(index)).save(folder / f"{index}.png")
    options = ["--data.name", "folder", "--data.root", str(root), "--data.workers", "0", "--device", "cpu"]
    return [SOURCE[0], *options, "--crop", "16", "--resize", "16", "--strengths", "1"]


def test_on_images_the_head_is_that_of_linear(tmp_path: Path) -> None:
    folder = tmp_path / "mine" / "deep"
    folder.mkdir(parents=True)
    for index in range(6):
        noise = np.random.default_rng(index).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{index}.png")
    common = [*write_scenes(tmp_path / "known"), "--cache", str(tmp_path / "cache")]
    sets = ["--outside", "noise", f"test={tmp_path / 'mine'}"]
    words = [*sets, "--hold-out", "bag", "trouser", "--k", "500"]
    ours = measured(*common, *words)
    protocol = ours["protocol"]
    assert {name: each["images"] for name, each in protocol["outside"].items()} == {
        "noise": 1000, "test": 6, "held-out": 12,
    }  # fmt: skip
    assert protocol["unknown_classes"] == ["bag", "trouser"]
    assert (protocol["test_images"], protocol["train_images"], protocol["k"]) == (48, 80, 80)
    assert any("--k 500 is more than the 80 neighbours" in remark for remark in protocol["remarks"])
    assert ours["metrics"]["outside/noise/mahalanobis/auroc"] > 90
    whole = measured(*common, "--outside", f"mine={tmp_path / 'mine'}")
    alone = linear(common)
    assert whole["metrics"]["outside/linear/top1"] == alone["metrics"]["linear/top1"]
    for part in ("train_fingerprint", "test_fingerprint"):  # whatever an outside set is called
        assert ours["provenance"][part] == alone["provenance"][part]


def test_an_auroc_of_the_record_is_that_of_its_scores(files: dict[str, str]) -> None:
    """knn by hand: the distance to the nearest train feature."""
    arrays = {name: np.load(path) for name, path in files.items()}
    unit = {
        name: each["features"] / np.linalg.norm(each["features"], axis=1, keepdims=True)
        for name, each in arrays.items()
    }
    nearest = {name: (unit[name] @ unit["train"].T).max(axis=1) for name in ("test", "far")}
    truth = np.repeat([1, 0], [150, 70])
    expected = 100 * roc_auc_score(truth, np.concatenate([nearest["test"], nearest["far"]]))
    metrics = measured(*known(files), "--outside", f"far={files['far']}", "--k", 1)["metrics"]
    assert metrics["outside/far/knn/auroc"] == pytest.approx(expected, abs=0.02)


WRONG = {
    "nothing to tell": ([], "there are no unknown images: name a set with --outside NAME=FOLDER"),
    "no name": (["--outside", "=x"], "--outside =x is not NAME=FOLDER"),
    "no folder": (["--outside", "x="], "--outside x= is not NAME=FOLDER"),
    "twice": (["--outside", "noise", "noise"], "--outside names two sets noise"),
    "a name of the record": (["--outside", "mean=x"], "--outside mean is a name that the record uses"),
    "held-out twice": (["--hold-out", "a", "a"], "--hold-out names one class twice"),
    "k": (["--outside", "noise", "--k", "0"], "--k is 0, but must be at least 1"),
    "resamples": (["--outside", "noise", "--resamples", "5"], "--resamples is 5, but must be at least 100"),
    "strength": (["--outside", "noise", "--strengths", "0"], "--strengths must be above 0"),
    "unknown": (["--outside", "nois"], "--outside nois is a name alone, and neither noise nor a set"),
    "needs a folder": (["--outside", "dtd"], "--outside dtd needs the folder of the set"),
    "noise of a folder": (["--outside", "noise=x"], "--outside noise is random pixels and has no folder"),
    "embedded": (["--outside", "fashion-objects=x"], "is embedded and has no folder: leave =x out"),
    "not there": (["--outside", "mine=/nowhere/at/all"], "--outside mine=/nowhere/at/all: "),
    "not a set": (["--outside", "cifar10=/nowhere"], "--outside cifar10=/nowhere: cifar10 is not in"),
    "no class": (["--hold-out", "hat"], "--hold-out hat: train has no image of such a class (there"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_wrong_words_are_one_sentence(what: str) -> None:
    words, message = WRONG[what]
    with pytest.raises(UserError) as caught:
        outside([*SOURCE, *words, "--cache", "none"])
    assert message in str(caught.value)


def test_known_images_are_not_outside(tmp_path: Path) -> None:
    for index in range(8):
        folder = tmp_path / "set" / "ab"[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((9, 9, 3), index, np.uint8)).save(folder / f"{index}.png")
    words = [
        "random:resnet18:width=4:stem=small",
        "--data.name",
        "folder",
        "--data.root",
        str(tmp_path / "set"),
    ]
    with pytest.raises(
        UserError, match="8 of the 8 images of --outside mine are images of the known set, too"
    ):
        outside([*words, "--device", "cpu", "--outside", f"mine={tmp_path / 'set'}"])
    (tmp_path / "link").symlink_to(tmp_path / "set" / "a")
    with pytest.raises(UserError, match="4 of the 4 images of --outside mine are images of the known set"):
        outside([*words, "--device", "cpu", "--outside", f"mine={tmp_path / 'link'}"])
    with pytest.raises(UserError, match="--outside fashion-objects is the very set that is known"):
        outside([*words[:2], "fashion-objects", "--device", "cpu", "--outside", "fashion-objects"])


def test_wrong_feature_files_are_one_sentence(files: dict[str, str], tmp_path: Path) -> None:
    both = write_features(tmp_path / "both.npz", np.ones((9, 8)), np.ones((9, 2), int))
    cases = {
        "say --outside noise=FILE.npz": [*known(files), "--outside", "noise"],
        "width 3, and those of train have 8": [*known(files), "--outside", f"a={files['narrow']}"],
        "train has no image of such a class (there are 0, 1, 2": [*known(files), "--hold-out", "7"],
        "--hold-out ²: train has no image of such a class": [*known(files), "--hold-out", "²"],
        "--hold-out names one class twice": [*known(files), "--hold-out", "1", "01"],
        "is a file of the known features: name one of others": [
            *known(files), "--outside", f"a={files['train']}"
        ],
        "one label an image": ["--train-features", both, "--test-features", both, "--outside", f"a={both}"],
        "30 test images are of classes that train does not have": [
            "--train-features", files["same"], "--test-features", files["test"],
            "--outside", f"a={files['far']}",
        ],
    }  # fmt: skip
    for message, words in cases.items():
        with pytest.raises(UserError) as caught:
            outside(words)
        assert message in str(caught.value)


def test_records_beside_are_never_replaced(files: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "a.far.npz").touch()
    with pytest.raises(UserError, match=r"a\.far\.npz exists"):
        outside([*known(files), "--outside", f"far={files['far']}", "--record", str(tmp_path / "a.json")])
