"""eval/linear.py, eval/fewshot.py and eval/semisup.py as programs, on embedded scenes at small size."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.small_runs import on_ranks

from siamtransfer.backbones.architecture import build_backbone
from siamtransfer.data import open_images
from siamtransfer.data.subset import Subset, draw_by_class, draw_shots
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.finetuning import FINETUNING
from siamtransfer.evaluation.linear import train as fitting
from siamtransfer.evaluation.linear.augmented_images import AugmentedImages, crops_and_flips
from siamtransfer.evaluation.linear.classifier_bank import ClassifierBank, ClassifierSetting
from siamtransfer.evaluation.linear.protocols import PUBLISHED
from siamtransfer.evaluation.linear.train import AugmentedFeatures
from siamtransfer.features.extract import Transform
from siamtransfer.programs.fewshot import main as fewshot
from siamtransfer.programs.linear import main as linear
from siamtransfer.programs.semisup import main as semisup
from siamtransfer.training.saved_training import SavedTraining
from siamtransfer.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("few_test_scenes")

SOURCE = "random:resnet18:width=8:stem=small"
SCENES = ["--data.name", "fashion-scenes", "--data.size", 24, "--data.count", 120, "--device", "cpu"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes as a folder set with a small test part, and a place for kept features."""
    from PIL import Image

    root = tmp_path_factory.mktemp("scenes")
    for split, count in (("train", 120), ("test", 40)):
        images = open_images("fashion-scenes", split=split, size=24, count=count)
        assert images.labels is not None
        for index in range(count):
            folder = root / "set" / split / images.classes[images.labels[index]].replace("/", "-")
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images.image(index)).save(folder / f"{index}.png")
    return root


def options(folder: Path) -> list[object]:
    return [
        "--data.name", "folder", "--data.root", folder / "set", "--crop", 24, "--resize", 24,
        "--cache", folder / "cache", "--device", "cpu", "--data.workers", 0,
    ]  # fmt: skip


def score(program: Any, *argv: object) -> dict[str, Any]:
    record: dict[str, Any] = program([str(word) for word in argv])
    return record


def refused(program: Any, *argv: object) -> str:
    with pytest.raises(UserError) as caught:
        program([str(word) for word in argv])
    return str(caught.value)


# The table, against the literature.


def test_the_published_recipes() -> None:
    stated = {
        name: (one.optimizer, one.lr * one.batch_size / 256, one.weight_decay, one.batch_size, one.epochs)
        for name, one in PUBLISHED.items()
    }
    assert stated == {
        "simsiam": ("lars", 1.6, 0, 4096, 90),
        "simsiam-paper": ("lars", 0.32, 0, 4096, 90),
        "moco": ("sgd", 30, 0, 256, 100),
        "moco-v3": ("sgd", 0.4, 0, 1024, 90),
        "swav": ("sgd", 0.3, 1e-6, 256, 100),
        "barlow-twins": ("sgd", 0.3, 1e-6, 256, 100),
        "vicreg": ("sgd", 0.02, 1e-6, 256, 100),
        "dino": ("sgd", 0.004, 0, 1024, 100),
    }
    moco = PUBLISHED["moco"]
    assert [moco.decay(epoch) for epoch in (0, 59, 60, 79, 80, 99)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )
    cosine = PUBLISHED["simsiam"].decay
    assert (cosine(0), cosine(45)) == pytest.approx((1, 0.5)) and 0 < cosine(89) < 0.001


def test_moco_v3_has_another_rate_for_vits() -> None:
    """CONFIG.md of facebookresearch/moco-v3: --lr=3 for ViTs, and the default 0.1 for ResNet-50."""
    resnet, vit, dino_vit = (
        PUBLISHED[protocol].of(build_backbone(name))
        for protocol, name in (
            ("moco-v3", "resnet18"),
            ("moco-v3", "vit_tiny_patch16_224"),
            ("dino", "vit_tiny_patch16_224"),
        )
    )
    assert (resnet.lr, vit.lr, dino_vit.lr) == (0.1, 3.0, 0.001)
    assert "vit_lr" not in vit.as_record()


def test_the_published_finetuning() -> None:
    swav = FINETUNING["swav"]
    assert (swav.rates[1], swav.rates[10]) == ((0.02, 5.0), (0.01, 0.2))
    assert [swav.decay(epoch, 20) for epoch in (0, 11, 12, 15, 16)] == pytest.approx([1, 1, 0.2, 0.2, 0.04])
    assert FINETUNING["vicreg"].decay(10, 20) == pytest.approx(0.5)


# Runs.


@pytest.mark.parametrize("protocol", ["moco", "simsiam", "dino"])
def test_a_published_protocol_prints_the_last_and_the_best_epoch(folder: Path, protocol: str) -> None:
    record = score(
        linear, SOURCE, *options(folder), "--protocol", protocol, "--epochs", 3, "--batch-size", 50,
        "--record", folder / f"{protocol}.json",
    )  # fmt: skip
    metrics = record["metrics"]
    by_epoch = [metrics[f"linear/epoch={n}/top1"] for n in (1, 2, 3)]
    assert metrics["linear/last/top1"] == by_epoch[-1]
    assert metrics["linear/best_on_test/top1"] == max(by_epoch)
    assert metrics["linear/best_on_test/epoch"] == by_epoch.index(max(by_epoch)) + 1
    assert record["protocol"]["changed"] == {"epochs": 3, "batch": 50}
    assert record["protocol"]["rate"] == PUBLISHED[protocol].lr
    wanted = "bicubic" if protocol == "dino" else "bilinear"
    assert record["protocol"]["transform"]["interpolation"] == wanted
    written = np.load(folder / f"{protocol}.npz")
    right = written["linear/last/predictions"] == written["labels"]
    assert 100 * right.mean() == pytest.approx(metrics["linear/last/top1"])


def test_a_probe_goes_on_exactly_after_a_stop(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = [SOURCE, *options(folder), "--protocol", "simsiam", "--epochs", 3, "--batch-size", 40]
    whole = score(linear, *argv)
    original, epochs = SavedTraining.save, []

    def interrupted(self: Any, state: dict[str, Any], step: int) -> None:
        original(self, state, step)
        epochs.append(1)
        if len(epochs) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(SavedTraining, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        score(linear, *argv, "--run", tmp_path)
    monkeypatch.undo()
    assert "--resume" in refused(linear, *argv, "--run", tmp_path)
    assert "seed is 0 there and 1" in refused(linear, *argv, "--run", tmp_path, "--resume", "--seed", 1)
    assert score(linear, *argv, "--run", tmp_path, "--resume")["metrics"] == whole["metrics"]


@pytest.mark.parametrize("augment", [[], ["--augment"]])
def test_a_sweep_chooses_on_held_out_train_and_scores_test_once(folder: Path, augment: list[str]) -> None:
    record = score(
        linear, SOURCE, *options(folder), "--protocol", "sweep", *augment, "--epochs", 4, "--batch-size", 32,
        "--lrs", 0.01, 1, "--optimizers", "sgd", "lars", "adamw",
        "--selections", "layer3", "layer2+layer4",
    )  # fmt: skip
    protocol = record["protocol"]
    assert len(protocol["held_out_top1"]) == 12
    chosen = protocol["chosen_head"]
    name = f"{chosen['layers']}/{chosen['rule']}/{chosen['rate']:g}"
    assert protocol["held_out_top1"][name] == max(protocol["held_out_top1"].values())
    assert protocol["augmented"] == bool(augment)
    assert set(record["metrics"]) == {
        f"linear/{key}" for key in ("top1", "top5", "mean_per_class", "ci95_low", "ci95_high")
    }


def test_the_backbone_must_come_out_as_it_went_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = fitting.AugmentedFeatures.batches

    def meddling(self: Any, start: int, epochs: int) -> Any:
        for batch in original(self, start, epochs):
            self.backbone.backbone.bn1.running_mean += 1e-7
            yield batch

    monkeypatch.setattr(fitting.AugmentedFeatures, "batches", meddling)
    with pytest.raises(RuntimeError, match="has changed"):
        score(
            linear, SOURCE, *options(folder), "--protocol", "moco", "--epochs", 1, "--batch-size", 50
        )  # fmt: skip


def trained(runtime: Runtime, root: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Two classifiers after two epochs of crops and flips; 51 images in batches of 25, so the last holds
    one."""
    images = open_images("folder", root=root, split="train")
    assert images.labels is not None
    torch.manual_seed(0)
    backbone = build_backbone("resnet18", width=8, stem="small")
    transform = Transform(24, None, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    labels = torch.from_numpy(images.labels)
    source = AugmentedFeatures(
        backbone, AugmentedImages(images, labels, np.arange(51), crops_and_flips(transform), 25, runtime), 16
    )
    bank = ClassifierBank([ClassifierSetting("lars", 1.0), ClassifierSetting("sgd", 0.1)], backbone.dim, 10)
    schedule = fitting.ClassifierSchedule(2, lambda *_: 1.0)
    fitting.train_heads({"output": bank}, source, lambda h, _: h, schedule, runtime)
    return bank.weight, bank.bias


def test_two_ranks_equal_one(folder: Path) -> None:
    alone = trained(Runtime(torch.device("cpu"), torch.float32), str(folder / "set"))
    for weight, bias in on_ranks(trained, str(folder / "set")):
        torch.testing.assert_close(weight, alone[0], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(bias, alone[1], rtol=1e-4, atol=1e-6)


def test_where_there_is_no_test_part_a_fifth_is_set_aside(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "set" / "train", tmp_path / "set")
    argv = ["--data.name", "folder", "--data.root", tmp_path / "set", "--crop", 24, "--cache", "none"]
    record = score(
        linear, SOURCE, *argv, "--protocol", "moco", "--epochs", 1, "--batch-size", 32, "--device", "cpu"
    )
    assert record["protocol"]["train_images"] + record["protocol"]["test_images"] == 120
    assert record["protocol"]["test_images"] == pytest.approx(24, abs=5)


def test_pixels_and_feature_files_can_be_swept(folder: Path) -> None:
    record = score(
        linear, "pixels", *options(folder), "--protocol", "sweep", "--epochs", 2, "--lrs", 0.01, 0.1
    )
    assert record["protocol"]["selections"] == ["output"]


def test_few_shots(folder: Path) -> None:
    record = score(fewshot, SOURCE, *options(folder), "--shots", 1, 3, "--repeats", 4)
    metrics = record["metrics"]
    assert {key.split("/")[1] for key in metrics} == {"k=1", "k=3"}
    spread, half = metrics["fewshot/k=3/C=1/top1/std"], metrics["fewshot/k=3/C=1/top1/ci95"]
    assert half == pytest.approx(3.182446 * spread / 2, rel=1e-5), "Student's t with 3 degrees of freedom"
    assert "--repeats at least 2" in refused(fewshot, SOURCE, *options(folder), "--repeats", 1)
    assert "images, and 99" in refused(fewshot, SOURCE, *options(folder), "--shots", 99)


def test_finetuning_learns_and_goes_on_exactly(folder: Path, tmp_path: Path) -> None:
    argv = [
        SOURCE, *options(folder), "--percent", 100, "--protocol", "ours", "--lrs", 0.2, 0.5,
        "--batch-size", 24, "--epochs", 3,
    ]  # fmt: skip
    whole = score(semisup, *argv, "--run", tmp_path / "whole")
    state = torch.load(tmp_path / "whole" / "semisup.pth", weights_only=True)
    assert len(state["notes"]) == 3
    again = score(semisup, *argv, "--run", tmp_path / "whole", "--resume")
    assert again["metrics"] == whole["metrics"]
    assert whole["protocol"]["labelled_images"] == 120
    part = score(semisup, *argv, "--percent", 25)
    assert part["protocol"]["labelled_images"] == pytest.approx(30, abs=3)


def test_finetuning_refuses_what_has_no_recipe(folder: Path) -> None:
    assert "give --lrs" in refused(
        semisup, SOURCE, *options(folder), "--protocol", "barlow-twins", "--percent", 10
    )
    assert "lower it with --batch-size" in refused(semisup, SOURCE, *options(folder), "--percent", 10)
    assert "fine-tunes a backbone" in refused(semisup, "pixels", *options(folder))
    assert "no test part" in refused(
        semisup, SOURCE, "--data.name", "folder", "--data.root", folder / "set" / "train", "--device", "cpu"
    )


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (
            ["--protocol", "moco", "--train-features", "a.npz", "--test-features", "b.npz"],
            "give a checkpoint",
        ),
        (["pixels", "--protocol", "swav"], "give a checkpoint"),
        ([SOURCE, "--augment"], "--protocol sweep"),
        ([SOURCE, "--resume", "--protocol", "moco"], "needs --run"),
        ([SOURCE, "--epochs", "3"], "logistic has no epochs"),
        ([SOURCE, "--protocol", "moco", "--epochs", "0"], "epochs 0"),
        ([SOURCE, "--protocol", "sweep", "--lrs", "0"], "above 0"),
        ([SOURCE, "--protocol", "sweep", "--lr", "1"], "--lrs"),
        ([SOURCE, "--layers", "layer9", *map(str, SCENES)], "layer9"),
        (["pixels", "--layers", "layer1", *map(str, SCENES)], "raw pixels"),
        ([SOURCE, "--protocol", "simsiam", "--cache", "none", *map(str, SCENES)], "batch is 4096"),
    ],
)
def test_mistakes_are_one_sentence(argv: list[str], said: str) -> None:
    assert said in refused(linear, *argv)


# Parts of sets.


def test_drawn_parts_are_balanced_and_have_a_fingerprint_of_their_own() -> None:
    labels = np.repeat([3, 5, 9], [10, 30, 4])
    rows = draw_by_class(labels, 0.1, seed=0)
    assert np.bincount(labels[rows]).tolist() == [0, 0, 0, 1, 0, 3, 0, 0, 0, 1]
    shots = draw_shots(labels, 4, seed=1)
    assert (np.unique(labels[shots], return_counts=True)[1] == 4).all()
    assert not np.array_equal(shots, draw_shots(labels, 4, seed=2))
    images = open_images("fashion-scenes", size=24, count=20)
    one, other = Subset(images, np.arange(5)), Subset(images, np.arange(5, 10))
    assert len({images.fingerprint, one.fingerprint, other.fingerprint}) == 3
    np.testing.assert_array_equal(other.image(2), images.image(7))
    assert other.describe(2) == images.describe(7)
