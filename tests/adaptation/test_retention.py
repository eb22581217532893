"""The forgetting guard: what is measured, when the alarm sounds, which state is kept, and a resumed run."""

from __future__ import annotations

import functools
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.small_runs import assert_same_run, complete, images_of, launch, newest, rows, stop_at
from support.thorough import more

from siamtransfer.adaptation.forgetting import ForgettingWatch
from siamtransfer.checkpoints.read_backbone import load_backbone
from siamtransfer.data.sources import open_dataset
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.features.extract import evaluation_transform, extract
from siamtransfer.metrics.cka import linear_cka
from siamtransfer.pretraining.knn_scorer import KnnScorer

pytestmark = pytest.mark.usefixtures("few_test_scenes")

TOP1 = "retention/knn/k=5/T=0.07/top1"
LOSS = 30.0


def forget(start: str) -> None:
    """A fault: a network whose first layer is no longer that of `start` is LOSS points worse on the retention
    set, which is scored by leave-one-out."""
    before = torch.load(start, weights_only=True)["model"]["backbone.conv1.weight"]
    score = KnnScorer.score

    def worse(self: KnnScorer, backbone: Any, **options: Any) -> dict[str, float]:
        lost = 0 if self.test is not None or torch.equal(backbone.conv1.weight, before) else LOSS
        return {name: value - lost for name, value in score(self, backbone, **options).items()}

    KnnScorer.score = worse  # type: ignore[method-assign]


def forget_and_stop(start: str, step: int) -> None:
    """Both faults."""
    forget(start)
    stop_at(step)()


def forgetful(options: list[str]) -> Any:
    return functools.partial(forget, options[0].partition("=")[2])


def test_the_watch_sounds_once_until_a_check_is_within_again():
    watch = ForgettingWatch(start=60.0)
    said = [watch.check(step, accuracy, 2.0) for step, accuracy in enumerate([59, 58, 57.9, 50, 58.5, 57])]
    assert [step for step, text in enumerate(said) if text] == watch.alarms == [2, 5]
    assert said[2] is not None
    assert said[2].startswith(
        "FORGETTING at step 2: kNN on the retention set is 57.90 %, 2.10 points below the start's 60.00 %"
    )


def test_the_state_that_is_kept():
    watch = ForgettingWatch(start=60.0)
    kept = []
    for step, (old, new) in enumerate([(60, 30.0), (59, 35.0), (59, 34.0), (50, 90.0), (58, 36.0)]):
        watch.check(step, old, 2.0)
        if watch.deserves_keeping(new):
            watch.keep(step, new)
            kept.append(step)
    assert kept == [0, 1, 4] and watch.kept_accuracy == 36.0
    watch = ForgettingWatch(start=60.0)
    watch.check(1, 57.0, 2.0)
    assert not watch.deserves_keeping(None)
    watch.check(2, 58.0, 2.0)
    assert watch.deserves_keeping(None)


@pytest.fixture(scope="module")
def options(shapes_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """An adaptation of a network that has seen the retention set."""
    start = tmp_path_factory.mktemp("start") / "run"
    complete(start, *images_of(shapes_folder))
    return [
        f"--backbone.weights={start / 'checkpoint.pth'}",
        f"--adapt.retention={shapes_folder}",
        "--adapt.cka_images=30",
        "--monitor.knn_every=1",
        "--monitor.knn_k=5",
        "--adapt.warmup_epochs=1",
    ]


@pytest.fixture(scope="module")
def undisturbed(options: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("retention") / "run"
    complete(folder, *options, "--adapt.max_drop=2", fault=forgetful(options))
    return folder


def test_the_numbers_are_those_of_the_networks(options: list[str], undisturbed: Path) -> None:
    logged = {row["step"]: row for row in rows(undisturbed) if TOP1 in row}
    assert list(logged) == [0, 5, 10, 15]
    assert {f"baseline/{name}/knn/k=5/T=0.07/top1" for name in ("pixels", "start")} <= {*rows(undisturbed)[0]}
    state = newest(undisturbed)
    images, none = open_dataset(options[1].partition("=")[2])
    assert none is None
    normalisation = state["normalisation"]
    transform = evaluation_transform(16, images.image_size, normalisation["mean"], normalisation["std"])
    runtime = Runtime(torch.device("cpu"), torch.float32)
    scorer = KnnScorer(images, None, transform, runtime, 5, 0.07)
    features = {}
    for step, file in ((0, options[0].partition("=")[2]), (15, undisturbed / "checkpoint.pth")):
        backbone, _ = load_backbone(file)
        lost = LOSS if step else 0
        assert scorer.score(backbone)[scorer.name] - lost == pytest.approx(logged[step][TOP1])
        features[step] = extract(backbone, images, transform, runtime)
    assert logged[0]["retention/drop"] == 0 and logged[0]["retention/cka"] == pytest.approx(1)
    assert logged[15]["retention/drop"] == pytest.approx(logged[0][TOP1] - logged[15][TOP1])
    chosen = state["start_features"]
    assert chosen.shape == (30, features[0].shape[1])
    at = [int((features[0] - row).abs().sum(dim=1).argmin()) for row in chosen]
    torch.testing.assert_close(features[0][at], chosen, rtol=1e-4, atol=1e-5)
    assert len(set(at)) == 30
    assert logged[15]["retention/cka"] == pytest.approx(linear_cka(chosen, features[15][at]), abs=1e-4)


def test_the_alarm_is_said_counted_and_kept_in_the_record(options: list[str], tmp_path: Path) -> None:
    keeping = [*options, "--adapt.max_drop=2", "--adapt.on_forgetting=keep-best"]
    run = complete(tmp_path / "run", *keeping, fault=forgetful(options))
    assert run.said.count("FORGETTING at step 10: ") == run.said.count("FORGETTING") == 1
    metrics = run.record["metrics"]
    assert metrics["forgetting_alarms"] == 1 and metrics["retention/drop"] > 2
    assert run.record["protocol"]["retention_max_drop"] == 2
    assert run.record["provenance"]["good_checkpoint"] == str(run.folder / "good.pth")
    assert torch.load(run.folder / "good.pth", weights_only=True)["progress"]["step"] == 5


def test_stop_ends_the_run_and_names_the_good_state(options: list[str], tmp_path: Path) -> None:
    guarded, fault = [*options, "--adapt.max_drop=2", "--adapt.on_forgetting=stop"], forgetful(options)
    run = launch(tmp_path / "run", *guarded, fault=fault)
    assert run.wait() == 2, run.said
    assert "stopped as adapt.on_forgetting asks" in run.said
    assert f"the good state is {run.folder / 'good.pth'} of step 5" in run.said
    drops = {row["step"]: row["retention/drop"] for row in rows(run.folder) if TOP1 in row}
    assert list(drops) == [0, 5, 10] and drops[5] == 0 and drops[10] > 2
    before, _ = load_backbone(options[0].partition("=")[2])
    kept, _ = load_backbone(run.folder / "good.pth")
    assert all(torch.equal(p, q) for p, q in zip(before.parameters(), kept.parameters(), strict=True))
    again = launch(run.folder, *guarded, "--resume", fault=fault)
    assert again.wait() == 2 and "FORGETTING at step 10" in again.said
    complete(run.folder, *options, "--adapt.max_drop=2", "--resume", fault=fault)
    assert newest(run.folder)["progress"]["step"] == 15


@pytest.mark.parametrize("step", [5, more(12)])
def test_a_run_goes_on_to_the_bit(step: int, options: list[str], undisturbed: Path, tmp_path: Path) -> None:
    folder, guarded = tmp_path / "run", [*options, "--adapt.max_drop=2"]
    fault = functools.partial(forget_and_stop, options[0].partition("=")[2], step)
    assert launch(folder, *guarded, fault=fault).wait() == 128 + signal.SIGTERM
    complete(folder, *guarded, "--resume", fault=forgetful(options))
    assert_same_run(folder, undisturbed)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--adapt.retention=FLAT"], "has no labels, so nothing shows whether it is forgotten"),
        (["--adapt.retention=no/such"], "adapt.retention: there is no folder no/such"),
        (["--adapt.retention=no-such-set"], "adapt.retention no-such-set: "),
        (["--adapt.retention=cifar10"], "the folder of a set by name is given by --adapt.retention-root"),
        (["--backbone.width=16"], "set --backbone.name, --backbone.width and --backbone.stem to the file's"),
        (["--adapt.lora_rank=4"], "has batch norm"),
    ],
)
def test_wrong_arguments_end_before_the_first_step(
    words: list[str], sentence: str, options: list[str], shapes_folder: Path, tmp_path: Path
) -> None:
    flat = next(path for path in shapes_folder.iterdir() if path.is_dir())
    run = launch(tmp_path / "run", *options, *(word.replace("FLAT", str(flat)) for word in words))
    assert run.wait() == 2
    assert run.said.splitlines()[-1].startswith("error: ") and sentence in run.said
    assert not list((tmp_path / "run").glob("checkpoints/*"))


@pytest.fixture(scope="module")
def rgba(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images of four channels in two class folders."""
    folder, generator = tmp_path_factory.mktemp("rgba"), np.random.default_rng(0)
    for number in range(12):
        (folder / f"class{number % 2}").mkdir(exist_ok=True)
        pixels = generator.integers(0, 256, (20, 20, 4), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"class{number % 2}" / f"{number}.png")
    return folder


def test_retention_images_are_read_like_the_new_ones(rgba: Path, shapes_folder: Path, tmp_path: Path) -> None:
    words = [
        *images_of(rgba),
        "--data.channels=4",
        "--backbone.weights=random:resnet18:width=8:channels=4",
        "--monitor.knn_every=1",
        "--optim.epochs=1",
        "--log.every=1",
    ]
    run = complete(tmp_path / "run", *words, f"--adapt.retention={rgba}")
    assert [row["step"] for row in rows(run.folder) if "retention/drop" in row] == [0, 1]
    for number, (other, sentence) in enumerate(
        (
            (shapes_folder, "has to have images of 4 channels like the new ones, and has others: "),
            ("fashion-objects", "data.channels is 4, and the images of fashion-objects have 1 channel"),
            ("fashion-scenes", "has images of 3 channels, and the new images have 4"),
        )
    ):
        refused = launch(tmp_path / f"run{number}", *words, f"--adapt.retention={other}")
        assert refused.wait() == 2
        assert f"adapt.retention {other}" in refused.said.splitlines()[-1]
        assert sentence in refused.said.splitlines()[-1]
