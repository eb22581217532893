"""SIGTERM and Ctrl-C during fine-tuning, linear probes and detection: the step ends, the state is saved, and
the training goes on to the bit."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_runs import differences
from support.thorough import more

from siamtransfer.data.scenes.export import SceneCounts
from siamtransfer.detection.data.datasets import DetectionData, open_detection_data
from siamtransfer.detection.tasks.instances import InstancesTask
from siamtransfer.detection.torchvision.engine import RunOptions, TransferResult, train_and_evaluate
from siamtransfer.detection.torchvision.instances import InstancesTransfer
from siamtransfer.detection.torchvision.model import Design
from siamtransfer.detection.torchvision.recipe import DetectorRecipe
from siamtransfer.detection.torchvision.training import TransferTraining
from siamtransfer.distributed.runtime import start_runtime
from siamtransfer.evaluation.linear.augmented_images import AugmentedImages
from siamtransfer.evaluation.linear.train import KeptFeatures
from siamtransfer.programs.linear import main as linear
from siamtransfer.programs.semisup import main as semisup
from siamtransfer.training.journal_rows import read_rows
from siamtransfer.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("few_test_scenes")

SOURCE = "random:resnet18:width=8:stem=small"
SCENES = [
    "--data.name=fashion-scenes", "--data.size=24", "--data.count=120", "--device=cpu", "--cache=none",
    "--data.workers=0",
]  # fmt: skip
FINETUNING = [
    SOURCE,
    *SCENES,
    "--percent=100",
    "--protocol=ours",
    "--epochs=2",
    "--batch_size=24",
]  # 5 an epoch
PROBE = [SOURCE, *SCENES, "--protocol=moco", "--epochs=2", "--batch_size=24"]
SWEEP = [SOURCE, *SCENES, "--protocol=sweep", "--epochs=2", "--batch_size=24", "--lrs", "0.1", "1"]
PROGRAMS = {
    "fine-tuning": (semisup, FINETUNING, "semisup.pth", AugmentedImages),
    "published probe": (linear, PROBE, "probe.pth", AugmentedImages),
    "sweep": (linear, SWEEP, "probe.pth", KeptFeatures),
}


def send_before(monkeypatch: pytest.MonkeyPatch, source: Any, step: int, number: int) -> None:
    """This process gets a signal when the batch of `step` is made."""
    original = source.batches

    def batches(self: Any, start: int, steps: int) -> Iterator[Any]:
        for now, batch in enumerate(original(self, start, steps), start):
            if now == step:
                os.kill(os.getpid(), number)
            yield batch

    monkeypatch.setattr(source, "batches", batches)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict[str, float], Any]]:
    """Metrics and last state of every program without a signal."""
    results = {}
    for name, (program, argv, file, _) in PROGRAMS.items():
        run = tmp_path_factory.mktemp("undisturbed")
        record = program([*argv, f"--run={run}"])
        assert record is not None
        results[name] = (record["metrics"], torch.load(run / file, weights_only=True))
    return results


@pytest.mark.parametrize(
    ("name", "step", "number"),
    [  # within an epoch, at its end, and in the second one
        ("fine-tuning", 2, signal.SIGTERM),
        ("published probe", 4, signal.SIGINT),
        ("sweep", 7, signal.SIGTERM),
        more("fine-tuning", 7, signal.SIGTERM),
        more("fine-tuning", 4, signal.SIGINT),
        more("published probe", 2, signal.SIGTERM),
        more("published probe", 7, signal.SIGTERM),
        more("sweep", 2, signal.SIGTERM),
        more("sweep", 4, signal.SIGINT),
    ],
)
def test_a_stopped_evaluator_goes_on_to_the_bit(
    name: str,
    step: int,
    number: int,
    undisturbed: dict[str, tuple[dict[str, float], Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    program, argv, file, source = PROGRAMS[name]
    metrics, state = undisturbed[name]
    with monkeypatch.context() as patch:
        send_before(patch, source, step, number)
        with pytest.raises(SystemExit) as ended:
            program([*argv, f"--run={tmp_path}"])
    assert ended.value.code == 128 + number
    words = capsys.readouterr().err.splitlines()[-1]
    assert words.startswith(f"stopped on a signal after step {step + 1} of ") and words.endswith("--resume")
    assert torch.load(tmp_path / file, weights_only=True)["step"] == step + 1
    with pytest.raises(UserError, match="go on with --resume"):
        program([*argv, f"--run={tmp_path}"])
    record = program([*argv, f"--run={tmp_path}", "--resume"])
    assert record is not None
    assert record["metrics"] == metrics
    assert differences(torch.load(tmp_path / file, weights_only=True), state) == []


def test_without_a_folder_it_stops_as_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    send_before(monkeypatch, AugmentedImages, 3, signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        semisup(FINETUNING)
    assert ended.value.code == 143
    assert "after step 4 of 10; nothing is kept, for there is no --run folder" in capsys.readouterr().err


DESIGN = Design(
    channels=16, hidden=32, anchors=(12, 18, 24, 36, 48), proposals=(40, 30), sampled=32, short_sides=(64,),
    short_side=64, long_side=96,
)  # fmt: skip
RECIPE = DetectorRecipe(
    DESIGN, steps=4, batch=2, lr=0.01, drops=(3,), warm_up=2, precise_batches=2, save_every=100, log_every=1
)


@pytest.fixture(scope="module")
def scenes() -> DetectionData:
    counts = SceneCounts(train=6, test=2, size=64, seed=0)
    return open_detection_data("fashion-scenes", "fashion-scenes", kind="coco", scenes=counts)


def detect(scenes: DetectionData, run: Path, *, resume: bool = False) -> TransferResult:
    from siamtransfer.checkpoints.read_backbone import read_backbone

    with start_runtime("cpu") as runtime:
        backbone = read_backbone("random:resnet18:width=8")
        transfer = InstancesTransfer(backbone, InstancesTask(scenes, "coco"), RECIPE)
        return train_and_evaluate(transfer, runtime, RunOptions(run, resume=resume))


@pytest.mark.parametrize("number", [signal.SIGTERM, more(signal.SIGINT)])
def test_a_stopped_detector_goes_on_to_the_bit(
    number: int, scenes: DetectionData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = detect(scenes, tmp_path / "whole")
    original = TransferTraining.step

    def step(self: Any, step: int, *arguments: Any) -> Any:
        if step == 1:
            os.kill(os.getpid(), number)
        return original(self, step, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(TransferTraining, "step", step)
        with pytest.raises(SystemExit) as ended:
            detect(scenes, tmp_path / "parts")
    assert ended.value.code == 128 + number
    state = torch.load(tmp_path / "parts" / "detector.pth", weights_only=True)
    assert state["step"] == 3  # the signal arrives within step 1 (from 0), and the next step tells all ranks
    resumed = detect(scenes, tmp_path / "parts", resume=True)
    assert resumed.metrics == pytest.approx(whole.metrics, nan_ok=True, rel=0, abs=0)
    states = [torch.load(tmp_path / run / "detector.pth", weights_only=True) for run in ("whole", "parts")]
    assert differences(*states) == []
    rows = [read_rows(tmp_path / run / "metrics.jsonl") for run in ("whole", "parts")]
    assert rows[0] == rows[1]
