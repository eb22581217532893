"""From a checkpoint and a set's name to labelled features, and the two evaluators that begin with them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from support.small_runs import ROOT, complete, images_of, newest
from support.thorough import more
from support.warm_python import run_python

from siamtransfer.checkpoints.read_backbone import load_backbone
from siamtransfer.data import open_images
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.dense.sheet import CELL
from siamtransfer.evaluation.knn.picture import OTHER, SAME
from siamtransfer.evaluation.knn.vote import knn_scores
from siamtransfer.features.extract import Transform, extract, extract_pixels
from siamtransfer.programs.features import main as export
from siamtransfer.programs.knn import main as knn_program
from siamtransfer.programs.linear import main as linear
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import digest_of_file

ALONE = Runtime(torch.device("cpu"), torch.float32)
SMALL = ["--device", "cpu", "--data.workers", "0"]


@pytest.fixture(scope="module")
def parts(shapes_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A train part of 40 and a test part of 20 images."""
    root = tmp_path_factory.mktemp("parts")
    for part in ("train", "test"):
        shutil.copytree(shapes_folder, root / part)
    for file in (root / "test").rglob("*[02468].png"):
        file.unlink()
    return root


@pytest.fixture(scope="module")
def checkpoint(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    run = complete(folder, *images_of(parts), "--monitor.knn_every=3", "--monitor.knn_k=5")
    assert "knn/k=5/T=0.07/top1" in run.record["metrics"]
    return folder / "checkpoint.pth"


def score(program: Any, *argv: object) -> dict[str, Any]:
    record = program([str(word) for word in argv])
    assert record is not None
    return json.loads(json.dumps(record))


def knn(argv: list[str]) -> Any:
    """kNN of the backbone alone; knn/test_knn_beside.py has what stands beside it."""
    return knn_program([*argv, "--no-baselines"])


def refused(program: Any, *argv: object) -> str:
    with pytest.raises(UserError) as caught:
        program([str(word) for word in argv])
    return str(caught.value)


def features_by_hand(checkpoint: Path, parts: Path) -> list[torch.Tensor]:
    backbone, read = load_backbone(checkpoint)
    transform = Transform(16, 18, *read.normalisation)
    found: list[torch.Tensor] = []
    for part in ("train", "test"):
        images = open_images("folder", root=parts, split=part)
        assert images.labels is not None
        found += [extract(backbone, images, transform, ALONE), torch.from_numpy(images.labels)]
    return found


def test_knn_of_our_own_checkpoint_needs_only_its_path(checkpoint: Path, parts: Path) -> None:
    record = score(knn, checkpoint, "--k", 1, 5, "--temperature", 0.07, 0.5, *SMALL)
    train, y, test, test_y = features_by_hand(checkpoint, parts)
    assert record["metrics"] == pytest.approx(knn_scores(train, y, test, test_y, [1, 5], [0.07, 0.5]).metrics)
    assert len(record["metrics"]) == 20
    protocol, provenance = record["protocol"], record["provenance"]
    assert protocol["train_images"] == 40
    assert protocol["test_images"] == len(test) == 20
    assert (protocol["transform"]["crop"], protocol["transform"]["resize"]) == (16, 18)
    assert (protocol["k"], protocol["temperature"]) == ([1, 5], [0.07, 0.5])
    assert provenance["weights_digest"] == load_backbone(checkpoint)[1].digest
    assert provenance["train_fingerprint"] == newest(checkpoint.parent)["data"]["fingerprint"]
    assert provenance["train_fingerprint"] != provenance["test_fingerprint"]


def test_the_run_and_the_evaluator_agree(checkpoint: Path) -> None:
    lines = (checkpoint.parent / "metrics.jsonl").read_text().splitlines()
    name = "knn/k=5/T=0.07/top1"
    last = [json.loads(line)[name] for line in lines if name in json.loads(line)][-1]
    assert score(knn, checkpoint, "--k", 5, *SMALL)["metrics"][name] == pytest.approx(last)


def test_linear_equals_scikit_learn_on_the_same_features(checkpoint: Path, parts: Path) -> None:
    record = score(linear, checkpoint, "--standardise", "--strengths", 0.01, *SMALL)
    train, y, test, test_y = (part.double().numpy() for part in features_by_hand(checkpoint, parts))
    scaler = StandardScaler().fit(train)
    # Two classes: scikit-learn fits one row, whose penalty counts w and -w once instead of twice.
    theirs = LogisticRegression(C=0.02, tol=1e-10, max_iter=10_000).fit(scaler.transform(train), y)
    assert record["metrics"]["linear/top1"] == pytest.approx(
        100 * theirs.score(scaler.transform(test), test_y)
    )
    assert record["protocol"]["chosen_strength"] == 0.01


def test_features_are_kept_and_new_weights_at_an_old_path_are_not_mistaken(
    checkpoint: Path, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, cache = tmp_path / "mine.pth", tmp_path / "cache"
    shutil.copy(checkpoint, mine)
    first = score(knn, mine, "--k", 5, "--cache", cache, *SMALL)
    assert capsys.readouterr().err.count("extracting features") == 2
    assert len(list(cache.iterdir())) == 2
    again = score(knn, mine, "--k", 5, "--cache", cache, *SMALL)
    assert "extracting" not in capsys.readouterr().err
    assert again["metrics"] == first["metrics"]
    state = torch.load(mine, weights_only=True)
    state["model"]["backbone.conv1.weight"] *= torch.linspace(-1, 1, 8).view(-1, 1, 1, 1)
    torch.save(state, mine)
    other = score(knn, mine, "--k", 5, "--cache", cache, *SMALL)
    assert capsys.readouterr().err.count("extracting features") == 2
    assert other["provenance"]["weights_digest"] != first["provenance"]["weights_digest"]
    score(knn, mine, "--k", 5, "--cache", "none", *SMALL)
    assert len(list(cache.iterdir())) == 4


def test_images_that_change_at_equal_size_have_other_features(
    parts: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every test image becomes another train image's copy: the cache knows the old ones only."""
    root, cache = tmp_path / "parts", tmp_path / "cache"
    shutil.copytree(parts, root)
    for file in sorted(root.rglob("*.png")):  # BMP: all of one size in bytes
        Image.open(file).save(file.with_suffix(".bmp"))
        file.unlink()
    options = ["--k", 5, "--data.name", "folder", "--data.root", root, *SMALL]
    first = score(knn, checkpoint, *options, "--cache", cache)
    files = sorted((root / "test").rglob("*.bmp"))
    contents = [file.read_bytes() for file in files]
    for file, content in zip(files, contents[1:] + contents[:1], strict=True):
        assert file.stat().st_size == len(content)
        file.write_bytes(content)
    capsys.readouterr()
    second = score(knn, checkpoint, *options, "--cache", cache)
    assert "extracting features of 20 images" in capsys.readouterr().err
    assert second["metrics"] == score(knn, checkpoint, *options, "--cache", "none")["metrics"]
    assert second["provenance"]["test_fingerprint"] == first["provenance"]["test_fingerprint"]


def test_a_cache_in_the_place_of_a_file_costs_a_remark_only(
    checkpoint: Path, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    options = ["--k", 5, "--data.name", "folder", "--data.root", parts, *SMALL]
    first = score(knn, checkpoint, *options, "--cache", tmp_path / "file")
    assert capsys.readouterr().err.count("features are not kept for the next time") == 1
    assert first["metrics"] == score(knn, checkpoint, *options, "--cache", "none")["metrics"]


def test_the_usual_cache_is_the_users(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    score(knn, checkpoint, "--k", 5, *SMALL)
    assert len(list((tmp_path / "siamtransfer" / "features").glob("*.npy"))) == 2


def test_what_is_asked_for_goes_before_what_the_checkpoint_says(
    checkpoint: Path, shapes_folder: Path
) -> None:
    options = ["--data.name", "folder", "--data.root", shapes_folder, "--crop", 12, "--resize", 20]
    record = score(knn, checkpoint, *options, "--k", 3, *SMALL)
    assert record["protocol"]["test"] == "leave-one-out on train"
    assert record["protocol"]["transform"] | {"mean": 0, "std": 0} == {
        "crop": 12, "resize": 20, "mean": 0, "std": 0, "interpolation": "bilinear",
    }  # fmt: skip
    record = score(linear, checkpoint, *options, "--strengths", 0.01, *SMALL)
    assert record["protocol"]["test"] == "20% of train"
    assert record["protocol"]["test_images"] == 8


def test_baselines_by_name(parts: Path) -> None:
    options = ["--data.name", "folder", "--data.root", parts, "--crop", 16, "--k", 5, *SMALL]
    record = score(knn, "pixels", *options)
    train, test = (open_images("folder", root=parts, split=part) for part in ("train", "test"))
    transform = Transform(16, 18, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    flat = [extract_pixels(part, transform) for part in (train, test)]
    labels = [torch.from_numpy(part.labels) for part in (train, test) if part.labels is not None]
    assert record["metrics"] == pytest.approx(
        knn_scores(flat[0], labels[0], flat[1], labels[1], [5], [0.07]).metrics
    )
    assert record["provenance"]["weights_digest"] is None
    seeds = [
        score(knn, f"random:resnet18:width=8:stem=small:seed={seed}", *options)["provenance"][
            "weights_digest"
        ]
        for seed in (0, 1, 0)
    ]
    assert seeds[0] == seeds[2] != seeds[1]


# Feature files of any framework.


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder, generator = tmp_path_factory.mktemp("features"), np.random.default_rng(0)
    centres = generator.normal(size=(3, 7)) * 2
    for name, each in (("train", 30), ("test", 20)):
        labels = np.arange(3).repeat(each) * 10
        features = (centres[labels // 10] + generator.normal(size=(3 * each, 7))).astype(np.float32)
        np.savez(folder / f"{name}.npz", features=features, labels=labels)
    return folder / "train.npz", folder / "test.npz"


def test_feature_files_are_scored_like_features(files: tuple[Path, Path]) -> None:
    (train, y), (test, test_y) = ([np.load(f)[key] for key in ("features", "labels")] for f in files)
    options = ["--train-features", files[0], f"--test-features={files[1]}"]
    record = score(knn, *options, "--k", 3)
    bank, bank_y, queries, queries_y = (torch.from_numpy(array) for array in (train, y, test, test_y))
    expected = knn_scores(bank, bank_y, queries, queries_y, [3], [0.07]).metrics
    assert record["metrics"] == pytest.approx(expected)
    scaler = StandardScaler().fit(train.astype(float))
    theirs = LogisticRegression(C=0.1, tol=1e-10, max_iter=10_000).fit(scaler.transform(train), y)
    record = score(linear, *options, "--standardise", "--strengths", 0.1)
    assert record["metrics"]["linear/top1"] == pytest.approx(
        100 * theirs.score(scaler.transform(test), test_y)
    )
    assert len(record["provenance"]["train_digest"]) == 64


def test_several_labels_an_image_give_mean_average_precision(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    for name, count in (("train", 60), ("test", 40)):
        labels = generator.integers(0, 2, (count, 3))
        features = (labels + 0.5 * generator.normal(size=(count, 3))).astype(np.float32)
        np.savez(tmp_path / f"{name}.npz", features=features, labels=labels)
    options = ["--train-features", tmp_path / "train.npz", "--test-features", tmp_path / "test.npz"]
    record = score(knn, *options, "--k", 5, "--uniform")
    assert set(record["metrics"]) == {"knn/k=5/T=0.07/mAP", "knn/k=5/uniform/mAP"}
    assert all(70 < value < 100 for value in record["metrics"].values())
    record = score(linear, *options)
    assert record["metrics"]["linear/mAP"] > 90
    written = score(linear, *options, "--record", tmp_path / "r.json")["provenance"]
    assert len(written["predictions_digest"]) == 64
    assert "one label an image" in refused(linear, *options, "--protocol", "sweep")


@pytest.mark.parametrize("compressed", [False, True])
def test_predictions_and_confusion_are_written(
    tmp_path: Path, files: tuple[Path, Path], compressed: bool
) -> None:
    """A compressed feature file cannot be mapped and is scored the same."""
    train = tmp_path / "train.npz"
    (np.savez_compressed if compressed else np.savez)(train, **np.load(files[0]))
    options = ["--train-features", train, "--test-features", files[1], "--k", 3, "--memory-budget", 1e-4]
    record = score(knn, *options, "--record", tmp_path / "p.json", "--metric", "euclidean")
    assert json.loads((tmp_path / "p.json").read_text()) == record
    assert record["provenance"]["predictions_digest"] == digest_of_file(tmp_path / "p.npz")
    written = np.load(tmp_path / "p.npz")
    confusion, labels = written["k=3/euclidean/confusion"], written["labels"]
    assert confusion.sum() == len(labels) == 60
    assert written["k=3/euclidean/classes"].tolist() == [0, 10, 20]
    right = written["k=3/euclidean/predictions"] == labels
    assert record["metrics"]["knn/k=3/euclidean/top1"] == pytest.approx(100 * right.mean())
    assert confusion.trace() == right.sum()
    theirs = KNeighborsClassifier(3, weights=lambda d: 1 / (d + 1e-5))
    theirs.fit(np.load(train)["features"], np.load(train)["labels"])
    assert (theirs.predict(np.load(files[1])["features"]) == written["k=3/euclidean/predictions"]).all()


def test_exported_features_score_as_the_checkpoint_does(checkpoint: Path, tmp_path: Path) -> None:
    for part in ("train", "test"):
        record = score(export, checkpoint, tmp_path / f"{part}.npz", "--part", part, *SMALL)
        assert record["provenance"]["out_digest"] == digest_of_file(tmp_path / f"{part}.npz")
    options = ["--train-features", tmp_path / "train.npz", "--test-features", tmp_path / "test.npz"]
    direct = score(knn, checkpoint, "--k", 5, *SMALL)
    assert score(knn, *options, "--k", 5)["metrics"] == direct["metrics"]
    before = (tmp_path / "train.npz").read_bytes()
    assert "exists" in refused(export, checkpoint, tmp_path / "train.npz", *SMALL)
    assert "must end in .npz" in refused(export, checkpoint, tmp_path / "train.npy", *SMALL)
    assert "give it a checkpoint" in refused(export, checkpoint, tmp_path / "x.npz", *options)
    assert (tmp_path / "train.npz").read_bytes() == before and not (tmp_path / "x.npz").exists()


def test_a_flipped_bit_in_mapped_features_is_found(tmp_path: Path, files: tuple[Path, Path]) -> None:
    damaged = bytearray(files[0].read_bytes())
    damaged[400] ^= 1  # among the features, which come first
    (tmp_path / "train.npz").write_bytes(damaged)
    said = refused(knn, "--train-features", tmp_path / "train.npz", "--test-features", files[1], "--k", 3)
    assert "train.npz cannot be read as an .npz file: Bad CRC-32" in said


def test_neighbours_are_drawn(checkpoint: Path, files: tuple[Path, Path], tmp_path: Path) -> None:
    score(knn, checkpoint, "--k", 4, *SMALL, "--neighbours", tmp_path / "grid.png")
    picture = np.asarray(Image.open(tmp_path / "grid.png"))
    assert picture.shape[0] > 12 * CELL and picture.shape[1] > 5 * CELL
    assert (picture[0, 0] == 255).all()
    assert all((picture == colour).all(axis=-1).any() for colour in (SAME, OTHER))
    options = ["--train-features", files[0], "--test-features", files[1], "--k", 3]
    assert "needs images" in refused(knn, *options, "--neighbours", tmp_path / "other.png")


# Mistakes.


def test_mistakes_are_one_sentence(
    checkpoint: Path, files: tuple[Path, Path], parts: Path, tmp_path: Path
) -> None:
    assert "give a checkpoint" in refused(knn)
    assert "not both" in refused(knn, checkpoint, "--train-features", files[0])
    assert "come in pairs" in refused(linear, "--train-features", files[0])
    np.savez(tmp_path / "narrow.npz", features=np.ones((4, 2), np.float32), labels=np.arange(4))
    assert "width 7" in refused(knn, "--train-features", files[0], "--test-features", tmp_path / "narrow.npz")
    assert "--data.name" in refused(knn, "random:resnet18", *SMALL)
    assert "temperature" in refused(knn, checkpoint, "--temperature", 0, *SMALL)
    assert "strengths" in refused(linear, checkpoint, "--strengths", -1, *SMALL)
    assert "--k must be at least 1" in refused(knn, checkpoint, "--k", 0, 5, *SMALL)
    assert "memory-budget" in refused(knn, checkpoint, "--memory-budget", 0, *SMALL)
    assert "missing.pth" in refused(knn, tmp_path / "missing.pth", *SMALL)
    assert "no labels" in refused(knn, checkpoint, "--data.name", "flat", "--data.root", parts, *SMALL)
    torch.save({"state_dict": {"encoder.fc.0.weight": torch.ones(2, 2)}}, tmp_path / "heads.pth")
    assert "heads.pth" in refused(
        linear, tmp_path / "heads.pth", "--data.name", "folder", "--data.root", parts
    )


@pytest.mark.parametrize("program", ["knn", more("linear")])
def test_on_the_command_line_from_any_folder(program: str, files: tuple[Path, Path], tmp_path: Path) -> None:
    options = [
        f"--train-features={files[0]}",
        f"--test-features={files[1]}",
        *(["--k=3"] if program == "knn" else []),
    ]
    done = run_python(ROOT / "eval" / f"{program}.py", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    assert json.loads(done.stdout)["task"] == program
    assert "%" in done.stderr
