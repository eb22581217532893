"""Linear SVMs as VISSL fits them: against scikit-learn's own cross-validation, and the program end to end."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.model_selection import cross_val_score
from sklearn.svm import LinearSVC
from support.transfer_layouts import write_lines
from torch import nn
from torchvision.transforms import v2

from siamtransfer.backbones.architecture import build_backbone
from siamtransfer.data import open_images
from siamtransfer.data.imageset import ArrayImages
from siamtransfer.data.scenes.export import SceneCounts, write_voc
from siamtransfer.data.voc import ignored_of
from siamtransfer.evaluation.svm import svm
from siamtransfer.evaluation.svm.config import Stage
from siamtransfer.evaluation.svm.evaluate import sample_rows
from siamtransfer.evaluation.svm.memory import jobs_within
from siamtransfer.evaluation.svm.pooled_features import WINDOWS, SquashedImages, WindowPooledBackbone
from siamtransfer.evaluation.svm.svm import (
    LowShotScores,
    SvmSplit,
    draw,
    fit,
    normalise,
    score_full,
    score_low_shot,
)
from siamtransfer.metrics.average_precision import all_points
from siamtransfer.programs.svm import main
from siamtransfer.records.predictions import read_record
from siamtransfer.utils.errors import UserError

NAMES = ["ant", "bee", "cat"]
COSTS = [0.01, 1.0, 10.0]


def part(n: int, seed: int, difficult: float = 0.0) -> SvmSplit:
    """Features of 12 numbers in which three classes overlap, several of them an image."""
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(n, 12)) + 0.5
    labels = features[:, :3] + 0.7 * generator.normal(size=(n, 3)) > 1.0
    return SvmSplit.of(features, labels, generator.random((n, 3)) < difficult)


def test_features_are_divided_by_their_norm() -> None:
    features = np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)
    assert normalise(features).dtype == np.float64
    assert normalise(features).tolist() == [[3 / 5.00001, 4 / 5.00001], [0, 0]]


def test_rows_are_normalised_in_chunks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    features = np.random.default_rng(0).normal(size=(23, 5)).astype(np.float32)
    whole = normalise(features)
    monkeypatch.setattr(svm, "ROWS", 4)
    assert np.array_equal(normalise(features), whole)
    norms = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    assert np.array_equal(whole, features / (norms + 1e-5))


def test_as_many_svms_at_once_as_fit_the_memory() -> None:
    assert jobs_within(16, 5011, 9216, 8) == 8, "VOC07 is small"
    assert jobs_within(4, 5011, 9216, 64) == 4
    for rows in (100_000, 1_281_167):
        with pytest.raises(UserError, match=r"takes .* GiB and --memory allows 4: take --sample 77000"):
            jobs_within(4, rows, 2048, 64)
    assert jobs_within(4, 77_000, 2048, 64) == 1


def test_a_sample_is_an_equal_part_of_every_class() -> None:
    labels = np.arange(100) % 4
    rows = sample_rows(labels, 20, seed=1)
    assert rows is not None
    assert np.bincount(labels[rows]).tolist() == [5, 5, 5, 5]
    other = sample_rows(labels, 20, seed=2)
    assert other is not None
    assert not np.array_equal(rows, other)
    several = sample_rows(np.eye(100), 20, seed=1)
    assert several is not None
    assert len(np.unique(several)) == 20
    assert sample_rows(labels, 0, 1) is sample_rows(labels, 100, 1) is None


def test_an_ignored_label_is_negative_in_training() -> None:
    ignored = np.array([[True], [False]])
    assert SvmSplit.of(np.ones((2, 3)), np.array([[1], [1]]), ignored).labels.tolist() == [[False], [True]]


# All labels.


def test_costs_are_chosen_by_scikit_learns_cross_validation() -> None:
    train, test = part(90, 0, difficult=0.1), part(60, 1, difficult=0.2)
    found = score_full(train, test, NAMES, COSTS, seed=3)
    for c in range(3):
        truth = np.where(train.labels[:, c], 1, -1)
        machines = [
            LinearSVC(C=cost, class_weight={1: 2, -1: 1}, max_iter=2000, random_state=3, dual=True)
            for cost in COSTS
        ]
        theirs = [
            cross_val_score(machine, train.features, truth, cv=3, scoring="average_precision").mean()
            for machine in machines
        ]
        assert found.validated[c] == pytest.approx(100 * np.array(theirs), rel=1e-12)
        best = int(np.argmax(theirs))
        assert found.cost[c] == COSTS[best]
        scores = machines[best].fit(train.features, truth).decision_function(test.features)
        np.testing.assert_allclose(found.scores[:, c], scores, rtol=1e-12, atol=1e-12)
        rows = ~test.ignored[:, c]
        assert found.precision[c] == pytest.approx(100 * all_points(scores[rows], test.labels[rows, c]))
    assert len(set(found.cost)) > 1, "the classes do not all want the same cost"


def test_one_cost_needs_no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svm, "cross_validate", lambda *_: pytest.fail("there is nothing to choose"))
    found = score_full(part(60, 0), part(30, 1), NAMES, [2.0])
    assert found.cost.tolist() == [2.0] * 3 and np.isnan(found.validated).all()


@pytest.mark.slow
def test_processes_change_nothing() -> None:
    train, test = part(60, 0), part(30, 1)
    alone, together = (score_full(train, test, NAMES, COSTS, jobs=jobs) for jobs in (1, 2))
    assert (alone.scores == together.scores).all() and (alone.validated == together.validated).all()


def test_svms_that_did_not_converge_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = part(60, 0), part(30, 1)
    assert score_full(train, test, NAMES, COSTS).unconverged == 0
    monkeypatch.setattr(svm, "MAX_ITERATIONS", 1)
    found = score_full(train, test, NAMES, COSTS)
    assert found.unconverged == 3 * (3 * len(COSTS) + 1)


def test_what_the_full_benchmark_refuses() -> None:
    train, test = part(60, 0), part(30, 1)
    train.labels[:, 1] = np.arange(60) < 2
    with pytest.raises(UserError, match="2 of the 60 train images show bee: 3-fold"):
        score_full(train, test, NAMES, COSTS)
    train.labels[:, 1] = np.arange(60) < 58
    with pytest.raises(UserError, match="58 of the 60 train images show bee"):
        score_full(train, test, NAMES, COSTS)
    test.labels[:] = False
    with pytest.raises(UserError, match="shows any class"):
        score_full(part(60, 0), test, NAMES, COSTS)


def test_a_class_that_no_test_image_shows_has_no_precision() -> None:
    test = part(30, 1)
    test.labels[:, 1] = False
    found = score_full(part(60, 0), test, NAMES, [1.0])
    assert np.isnan(found.precision).tolist() == [False, True, False]


# A few labels.


def test_draws() -> None:
    train = part(200, 0, difficult=0.3)
    for c, k in ((0, 1), (1, 5), (2, 12)):
        rows = draw(train, c, k, number=2, seed=7)
        assert len(set(rows.tolist())) == 3 * k and (np.diff(rows) > 0).all()
        assert train.labels[rows, c].sum() == k and not train.ignored[rows, c].any()
        assert (draw(train, c, k, number=2, seed=7) == rows).all()
        for other in ({"number": 3, "seed": 7}, {"number": 2, "seed": 8}):
            assert (draw(train, c, k, **other) != rows).any()


def test_low_shot_scores_by_hand() -> None:
    train, test = part(120, 0, difficult=0.1), part(60, 1, difficult=0.2)
    found = score_low_shot(train, test, NAMES, COSTS, shots=[1, 4], draws=2, seed=5)
    for k in (1, 4):
        for number in range(2):
            on_test, on_rest = np.zeros((3, 3)), np.zeros((3, 3))
            for c in range(3):
                rows = draw(train, c, k, number, 5)
                rest = [n for n in range(120) if n not in rows and not train.ignored[n, c]]
                counted = ~test.ignored[:, c]
                for column, cost in enumerate(COSTS):
                    weights, biases, _ = fit(train.features[rows], train.labels[rows, c], [cost], 5)
                    for part_, chosen, table in ((test, counted, on_test), (train, rest, on_rest)):
                        scores = part_.features[chosen] @ weights[:, 0] + biases[0]
                        table[c, column] = 100 * all_points(scores, part_.labels[chosen, c])
            np.testing.assert_allclose(found.test[k][number], on_test.mean(axis=0), rtol=1e-9)
            np.testing.assert_allclose(found.rest[k][number], on_rest.mean(axis=0), rtol=1e-9)


def test_more_shots_are_better() -> None:
    found = score_low_shot(part(400, 0), part(200, 1), NAMES, [1.0], shots=[1, 8, 64])
    means = [float(found.test[k].mean()) for k in (1, 8, 64)]
    assert means == sorted(means) and means[-1] > means[0] + 5


def test_the_summary_names_who_chose_the_cost() -> None:
    test = {1: np.array([[10.0, 40.0], [20.0, 80.0]])}
    rest = {1: np.array([[50.0, 30.0], [50.0, 30.0]])}
    metrics, costs = LowShotScores(test, rest, 0).summary([0.5, 3.0])
    assert metrics == {
        "svm/low_shot/k=1/mean": 15, "svm/low_shot/k=1/min": 10,
        "svm/low_shot/k=1/max": 20, "svm/low_shot/k=1/std": 5,
        "svm/low_shot/k=1/best_on_test_cost/mean": 60, "svm/low_shot/k=1/best_on_test_cost/min": 40,
        "svm/low_shot/k=1/best_on_test_cost/max": 80, "svm/low_shot/k=1/best_on_test_cost/std": 20,
    }  # fmt: skip
    assert costs == {"rest_of_train": {"k=1": 0.5}, "best_on_test_cost": {"k=1": 3.0}}


def test_what_the_low_shot_benchmark_refuses() -> None:
    train, test = part(60, 0), part(30, 1)
    shown = int(train.labels[:, 0].sum())
    with pytest.raises(UserError, match=f"{shown} train images show ant .* 50 shots need 50 and 100"):
        score_low_shot(train, test, NAMES, COSTS, shots=[1, 50])
    few = SvmSplit(train.features, np.arange(60)[:, None] % 30 == [0, 1, 2], train.ignored)
    with pytest.raises(UserError, match="2 shots leave no train image that shows a class"):
        score_low_shot(few, test, NAMES, COSTS, shots=[2], draws=1)


# VISSL's features.


@pytest.mark.parametrize(
    ("stage", "side", "dim"),
    [("conv1", 12, 9216), ("res2", 6, 9216), ("res3", 4, 8192), ("res4", 3, 9216), ("res5", 2, 8192)],
)
def test_windows_of_a_resnet50(stage: Stage, side: int, dim: int) -> None:
    torch.manual_seed(0)
    backbone = build_backbone("resnet50", width=8)  # an eighth of the published width
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.get_buffer("running_var"), 0.5, 2)
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        h = WindowPooledBackbone(backbone, stage).eval()(x)
        assert h.shape == (1, dim // 8)
        backbone.eval()
        first = backbone.relu(backbone.bn1(backbone.conv1(x)))  # type: ignore[operator]
        maps = [first, *backbone.stages(x)][list(WINDOWS).index(stage)]  # type: ignore[operator]
        pool = nn.AvgPool2d(WINDOWS[stage][0], WINDOWS[stage][1], padding=WINDOWS[stage][2])
        torch.testing.assert_close(h, pool(maps).flatten(1), rtol=1e-4, atol=1e-4)
    assert h.numel() == maps.shape[1] * side**2


def test_images_are_squashed_as_torchvision_does_it() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 40, 60, 3), dtype=np.uint8)
    images = ArrayImages("noise", "train", pixels, np.array([1, 0]), ["a", "b"])
    squashed = SquashedImages(images, 32, 28)
    theirs = v2.Compose([v2.Resize(32), v2.Resize((28, 28))])(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    assert (np.stack([squashed.image(n) for n in range(2)]) == theirs.permute(0, 2, 3, 1).numpy()).all()
    at_once = SquashedImages(images, None, 28)
    theirs = v2.Resize((28, 28))(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    assert (at_once.image(1) == theirs[1].permute(1, 2, 0).numpy()).all()
    assert len(squashed) == 2 and squashed.image_size == 28 and squashed.describe(1) == "noise/train[1]"
    prints = {
        images.fingerprint,
        squashed.fingerprint,
        at_once.fingerprint,
        SquashedImages(images, 32, 24).fingerprint,
    }
    assert len(prints) == 4


# The program.

SOURCE = "random:resnet18:width=8"
SMALL = ["--device", "cpu", "--data.workers", 0, "--jobs", 1]


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes in VOC's layout, with the classes' lists that the development kit has."""
    root = tmp_path_factory.mktemp("voc")
    write_voc(root / "VOC2007", SceneCounts(train=60, test=20, size=32))
    for split, part_ in (("train", "trainval"), ("test", "test")):
        images = open_images("voc07", root=root, split=split)
        ignored = ignored_of(images)
        assert images.labels is not None and ignored is not None
        names = [Path(images.describe(n)).stem for n in range(len(images))]
        for c, label in enumerate(images.classes):
            values = np.where(ignored[:, c], 0, 2 * images.labels[:, c] - 1)
            lines = [f"{name} {value:2d}" for name, value in zip(names, values, strict=True)]
            write_lines(root / f"VOC2007/ImageSets/Main/{label}_{part_}.txt", lines)
    return root


def score(*argv: object) -> dict[str, Any]:
    record = main([str(word) for word in argv])
    assert record is not None
    return json.loads(json.dumps(record))


def refused(*argv: object) -> str:
    with pytest.raises(UserError) as caught:
        main([str(word) for word in argv])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_program_on_images(voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--data.root", voc, "--costs", 0.1, 10, "--cache", tmp_path / "cache", *SMALL]
    record = score(SOURCE, *options, "--record", tmp_path / "svm.json")
    assert capsys.readouterr().err.count("extracting") == 2
    metrics, protocol = record["metrics"], record["protocol"]
    images = open_images("voc07", root=voc, split="test")
    assert set(metrics) == {"svm/mAP", "svm/mAP_11point", *(f"svm/AP/{label}" for label in images.classes)}
    shown = [value for name, value in metrics.items() if name.startswith("svm/AP/") and value == value]
    assert metrics["svm/mAP"] == pytest.approx(np.mean(shown))
    assert 0 < metrics["svm/mAP"] < 100
    assert protocol["train"] == "voc07/train" and protocol["test_images"] == 20
    assert protocol["protocol"] == "vissl" and protocol["layers"].startswith("res5, mean over windows of 6")
    assert protocol["transform"]["crop"] == 224 and protocol["transform"]["short_side"] == 256
    assert set(protocol["chosen_cost"]) == set(images.classes)
    assert set(protocol["chosen_cost"].values()) <= {0.1, 10.0}
    kept = read_record(tmp_path / "svm.json").predictions
    assert kept.settings["svm"].shape == (20, len(images.classes))
    assert images.labels is not None and (kept.labels == images.labels).all()
    again = score(SOURCE, *options)
    assert "extracting" not in capsys.readouterr().err
    assert again["metrics"] == metrics
    other = score(SOURCE, *options, "--stage", "res4")
    assert capsys.readouterr().err.count("extracting") == 2
    assert other["metrics"] != metrics
    assert other["provenance"]["weights_digest"] == record["provenance"]["weights_digest"]


def test_the_central_crop_and_the_output(voc: Path) -> None:
    record = score(SOURCE, "--protocol", "swav", "--data.root", voc, "--crop", 64, "--costs", 1, *SMALL)
    assert record["protocol"]["protocol"] == "swav"
    assert record["protocol"]["layers"] == "output"
    assert record["protocol"]["transform"]["resize"] == 73
    assert record["protocol"]["chosen_on"] == "given"
    assert score("pixels", "--protocol", "swav", "--data.root", voc, "--crop", 16, "--costs", 1, *SMALL)


def test_low_shot_by_the_program(voc: Path, tmp_path: Path) -> None:
    options = [SOURCE, "--data.root", voc, "--low-shot", 1, 2, "--draws", 2, "--costs", 0.1, 10, *SMALL]
    record = score(*options, "--record", tmp_path / "few.json")
    protocol = record["protocol"]
    assert len(record["metrics"]) == 2 * 2 * 4
    assert protocol["shots"] == [1, 2] and protocol["draws"] == 2
    assert protocol["transform"]["short_side"] is None, "VISSL squashes these images at once"
    for k in (1, 2):
        best = record["metrics"][f"svm/low_shot/k={k}/best_on_test_cost/mean"]
        assert best >= record["metrics"][f"svm/low_shot/k={k}/mean"]
    assert json.loads((tmp_path / "few.json").read_text())["metrics"] == record["metrics"]
    assert "lower --low-shot" in refused(SOURCE, "--data.root", voc, "--low-shot", *SMALL)


@pytest.fixture
def files(tmp_path: Path) -> list[object]:
    words: list[object] = ["--jobs", 1]
    for name, part_ in (("train", part(90, 0, 0.1)), ("test", part(60, 1, 0.2))):
        np.savez(
            tmp_path / f"{name}.npz",
            features=part_.features.astype(np.float32),
            labels=part_.labels.astype(np.int64),
            ignored=part_.ignored,
        )
        words += [f"--{name}-features", tmp_path / f"{name}.npz"]
    return words


def test_feature_files(files: list[object], tmp_path: Path) -> None:
    record = score(*files, "--costs", *COSTS)
    single = [np.float32(part_.features) for part_ in (part(90, 0, 0.1), part(60, 1, 0.2))]
    train, test = part(90, 0, 0.1), part(60, 1, 0.2)
    train.features, test.features = (normalise(h) for h in single)
    found = score_full(train, test, ["0", "1", "2"], COSTS)
    assert record["metrics"]["svm/mAP"] == pytest.approx(found.precision.mean())
    assert [record["metrics"][f"svm/AP/{c}"] for c in range(3)] == pytest.approx(found.precision)
    arrays = dict(np.load(tmp_path / "test.npz"))
    del arrays["ignored"]
    np.savez(tmp_path / "test.npz", **arrays)
    assert score(*files, "--costs", *COSTS)["metrics"]["svm/mAP"] < record["metrics"]["svm/mAP"]
    np.savez(tmp_path / "test.npz", **arrays, ignored=np.zeros((60, 2), bool))
    assert "holds ignored[60, 2] of type bool; bool[60, 3] is needed" in refused(*files)
    arrays["labels"] = arrays["labels"][:, :2]
    np.savez(tmp_path / "test.npz", **arrays)
    assert "train has labels for 3 classes and test for 2" in refused(*files)


def test_one_label_an_image_has_to_be_asked_for(shapes_folder: Path, tmp_path: Path) -> None:
    for name in ("train", "test"):
        shutil.copytree(shapes_folder, tmp_path / "set" / name)
    options = ["pixels", "--data.name", "folder", "--data.root", tmp_path / "set", "--protocol", "swav"]
    options += ["--crop", 16, *SMALL]
    assert "--one-hot fits an SVM to each class" in refused(*options)
    record = score(*options, "--one-hot", "--costs", 1, 10)
    assert record["protocol"]["one_hot"] is True
    assert set(record["metrics"]) == {"svm/mAP", "svm/mAP_11point", "svm/AP/left", "svm/AP/upper"}
    assert record["metrics"]["svm/mAP"] > 99, "the test part is a copy of train"


def test_what_the_program_refuses(voc: Path, shapes_folder: Path, files: list[object]) -> None:
    root = ["--data.root", voc, *SMALL]
    assert "--costs must be above 0" in refused(SOURCE, *root, "--costs", 0)
    assert "--folds must be at least 2" in refused(SOURCE, *root, "--folds", 1)
    assert "--low-shot" in refused(SOURCE, *root, "--low-shot", 0)
    assert "--layers goes with --protocol swav" in refused(SOURCE, *root, "--layers", "layer3")
    assert "--stage goes with --protocol vissl" in refused(
        SOURCE, *root, "--protocol", "swav", "--stage", "res4"
    )
    assert "raw pixels have no stages" in refused("pixels", *root)
    assert "needs it; name the folder" in refused(SOURCE, *SMALL)
    assert "give a checkpoint" in refused(*SMALL)
    assert "a map 2 pixels wide of images of 64" in refused(SOURCE, *root, "--crop", 64)
    assert "folder has no test part" in refused(
        SOURCE, "--data.name", "folder", "--data.root", shapes_folder, "--one-hot", *SMALL
    )
    assert "leave --one-hot out" in refused(*files, "--one-hot")
    assert "--sample must be at least 1, or 0" in refused(*files, "--sample", -1)
    assert "take --sample" in refused(*files, "--memory", 1e-5)
    sampled = score(*files, "--sample", 60, "--costs", 1)
    assert sampled["protocol"]["sample"] == 60
