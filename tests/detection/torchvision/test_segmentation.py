"""Semantic segmentation in torchvision: crops, training, stop and resume, several ranks."""

from __future__ import annotations

import math
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.small_runs import differences, on_ranks
from support.small_segmentation import DESIGN, dilations

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.checkpoints.read_backbone import ReadBackbone, read_backbone
from siamtransfer.detection.data.semantic_data import SemanticData
from siamtransfer.detection.metrics.mask_outputs import SemanticOutputs, semantic_metrics
from siamtransfer.detection.tasks.semantic import SemanticTask
from siamtransfer.detection.torchvision.engine import RunOptions, TransferResult, train_and_evaluate
from siamtransfer.detection.torchvision.segmenter import build_segmenter
from siamtransfer.detection.torchvision.segmenter_recipe import (
    Head,
    SegmenterRecipe,
)
from siamtransfer.detection.torchvision.semantic import SemanticTransfer
from siamtransfer.detection.torchvision.training import measure_norms
from siamtransfer.detection.torchvision.training_crops import TrainingCrops
from siamtransfer.distributed.runtime import Runtime, start_runtime
from siamtransfer.segmentation.data.scenes import SceneMasks
from siamtransfer.segmentation.random_crop import CropRecipe
from siamtransfer.training.journal_rows import read_rows
from siamtransfer.utils.errors import UserError

RECIPE = SegmenterRecipe(
    design=DESIGN, crop=CropRecipe((49, 41)), steps=4, batch=2, lr=0.02, drops=(3,), warm_up=2,
    precise_batches=0, save_every=100, log_every=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def read() -> ReadBackbone:
    return read_backbone("random:resnet18:width=8")


def task(train: int = 6, test: int = 3) -> SemanticTask:
    return SemanticTask(SemanticData((SceneMasks("train", 64, train),), SceneMasks("test", 64, test)))


def train(read: ReadBackbone, recipe: SegmenterRecipe = RECIPE, **options: Any) -> TransferResult:
    with start_runtime("cpu") as runtime:
        return train_and_evaluate(SemanticTransfer(read, task(), recipe), runtime, RunOptions(**options))


def test_refused_before_any_work(read: ReadBackbone, tmp_path: Path) -> None:
    own = replace(DESIGN, trunk_norm="own", head_norm="synchronised")
    deep = replace(DESIGN, head="deeplab")
    for recipe, world, sentence in (
        (replace(RECIPE, batch=7), 1, "6 images, less than SOLVER.IMS_PER_BATCH 7"),
        (replace(RECIPE, design=own), 2, "torchvision's engine does not do on several processes"),
        (replace(RECIPE, design=deep, batch=1), 1, "needs 2 images; raise SOLVER.IMS_PER_BATCH 1"),
        (replace(RECIPE, design=replace(deep, trunk_norm="own", head_norm="own")), 2, "needs 2 images"),
        (replace(RECIPE, polynomial=0.9, end_lr=1.0), 1, "POLY_END_LR 1 is not between"),
    ):
        with pytest.raises(UserError, match=sentence):
            SemanticTransfer(read, task(), recipe).check(world)
    vit = replace(read, architecture=Architecture("timm:vit_tiny_patch16_224"))
    with pytest.raises(UserError, match=r"holds timm:vit_tiny_patch16_224, .*needs a ResNet"):
        train(vit, run=tmp_path / "run")
    dilated = replace(read, architecture=read.architecture._replace(output_stride=16))
    with pytest.raises(UserError, match=r"dilated to output stride 16, .*take weights without dilation"):
        train(dilated, run=tmp_path / "run")
    with pytest.raises(UserError, match=r"holds no segmenter.pth to evaluate: train first"):
        train(read, run=tmp_path / "run", evaluate_only=True)
    assert not (tmp_path / "run").exists()
    same = replace(DESIGN, output_stride=16, contracted=True)
    assert dilations(build_segmenter(dilated, 3, same, 255)) == [[1, 1, 1, 1], [1, 2, 2, 2]]


def test_crops_are_a_function_of_seed_epoch_and_index(read: ReadBackbone) -> None:
    first, second = SceneMasks("train", 64, 3), SceneMasks("train", 64, 2, seed=1)
    recipe = replace(RECIPE, crop=CropRecipe((64, 64), (1.0, 1.0), flip=False))
    crops = TrainingCrops((first, second), recipe, read.normalisation)
    assert len(crops) == 5
    for number, source, index in ((0, first, 0), (2, first, 2), (3, second, 0), (4, second, 1)):
        image, mask = crops[0, number]
        assert np.array_equal(image.permute(1, 2, 0).numpy(), source.image(index))
        assert np.array_equal(mask.numpy(), source.mask(index)) and mask.dtype == torch.int64
    random = TrainingCrops((first, second), replace(RECIPE, crop=CropRecipe((80, 72))), read.normalisation)
    images = {random[epoch, 3][0].numpy().tobytes() for epoch in range(4)}
    again = [random[2, 3], random[2, 3]]
    assert len(images) == 4 and all(torch.equal(a, b) for a, b in zip(*again, strict=True))
    small = TrainingCrops(
        (first,), replace(RECIPE, crop=CropRecipe((80, 72), (1.0, 1.0))), read.normalisation
    )
    image, mask = small[0, 1]
    assert image[:, -1, -1].tolist() == [124, 116, 104] and mask[-1, -1] == 255


@pytest.fixture(scope="module")
def undisturbed(read: ReadBackbone, tmp_path_factory: pytest.TempPathFactory) -> tuple[TransferResult, Path]:
    run = tmp_path_factory.mktemp("segmentation") / "run"
    return train(read, replace(RECIPE, score_every=2), run=run), run


def test_training(undisturbed: tuple[TransferResult, Path], read: ReadBackbone) -> None:
    outcome, run = undisturbed
    state = torch.load(run / "segmenter.pth", weights_only=True)
    body = {name[9:]: value for name, value in state["model"].items() if name.startswith("backbone.")}
    assert body.keys() == read.state.keys()
    assert not any(torch.equal(value, read.state[name]) for name, value in body.items()), "all of it learns"
    rows = read_rows(run / "metrics.jsonl")
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4]
    assert [row["lr"] for row in rows if "loss" in row] == pytest.approx([2e-5, 0.01001, 0.02, 0.002])
    assert all(row["loss"] == pytest.approx(row["loss/sem_seg"]) for row in rows if "loss" in row)
    assert [row["step"] for row in rows if "semantic/mIoU" in row] == [2, 4]
    assert isinstance(outcome.outputs, SemanticOutputs)
    counts = outcome.outputs.counts
    assert counts.areas()[2].sum() == 3 * 64 * 64, "every pixel of the masks counts, at their own size"
    assert outcome.metrics == pytest.approx(
        semantic_metrics(counts.scores(), task().classes), nan_ok=True, abs=0
    )
    assert sorted(outcome.outputs.predictions) == [0, 1, 2]
    assert outcome.protocol["comparable"] is False and outcome.protocol["head"] == "fcn"
    assert "torchvision's head is not that of the configuration" in outcome.protocol["not_comparable"]
    assert outcome.protocol["recipe"]["design"]["output_stride"] == 8


def test_evaluate_only_and_resuming_a_finished_run_change_nothing(
    undisturbed: tuple[TransferResult, Path], read: ReadBackbone
) -> None:
    outcome, run = undisturbed
    before = {path: path.read_bytes() for path in run.glob("*.*")}
    for how in ("evaluate_only", "resume"):
        again = train(read, replace(RECIPE, score_every=2), run=run, **{how: True})
        assert again.metrics == pytest.approx(outcome.metrics, nan_ok=True, abs=0)
    assert {path: path.read_bytes() for path in run.glob("*.*")} == before


@pytest.mark.parametrize("head", ["fcn", "deeplab"])
def test_a_stopped_training_goes_on_to_the_bit(
    head: Head, undisturbed: tuple[TransferResult, Path], read: ReadBackbone, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """SIGTERM in step 2 of 4, and with DeepLab's dropout of half the values; FCN's has a tenth."""
    recipe = replace(RECIPE, score_every=2, design=replace(DESIGN, head=head))
    expected, whole = undisturbed
    if head != "fcn":
        whole = tmp_path / "whole"
        expected = train(read, recipe, run=whole)
    original, seen = TrainingCrops.__getitem__, []

    def signalled(crops: TrainingCrops, ticket: tuple[int, int]) -> Any:
        seen.append(ticket)
        if len(seen) == 3:  # the first image of the second step
            os.kill(os.getpid(), signal.SIGTERM)
        return original(crops, ticket)

    monkeypatch.setattr(TrainingCrops, "__getitem__", signalled)
    with pytest.raises(SystemExit) as stopped:
        train(read, recipe, run=tmp_path / "run")
    assert stopped.value.code == 143
    assert "stopped on a signal after step 2 of 4" in capsys.readouterr().err
    monkeypatch.undo()
    for changed, sentence in (
        (replace(recipe, crop=CropRecipe((49, 49))), "is of another training: crop is"),
        (replace(recipe, design=replace(DESIGN, output_stride=16)), "is of another training: design is"),
    ):
        with pytest.raises(UserError, match=sentence):
            train(read, changed, run=tmp_path / "run", resume=True)
    outcome = train(read, recipe, run=tmp_path / "run", resume=True)
    assert outcome.metrics == pytest.approx(expected.metrics, nan_ok=True, abs=0)
    states = [torch.load(folder / "segmenter.pth", weights_only=True) for folder in (whole, tmp_path / "run")]
    assert differences(*states) == []
    assert read_rows(tmp_path / "run" / "metrics.jsonl") == read_rows(whole / "metrics.jsonl")


def trained_on(runtime: Runtime, run: Path) -> tuple[dict[str, float], list[int]]:
    transfer = SemanticTransfer(read_backbone("random:resnet18:width=8"), task(), replace(RECIPE, steps=2))
    outcome = train_and_evaluate(transfer, runtime, RunOptions(run))
    assert isinstance(outcome.outputs, SemanticOutputs)
    return outcome.metrics, outcome.outputs.counts.entries["truth"].tolist()


def test_two_ranks_train_the_network_of_one(read: ReadBackbone, tmp_path: Path) -> None:
    """Norms over both ranks' images and equal numbers of labelled pixels: the steps are those of one."""
    (first, truth), (second, _) = on_ranks(trained_on, tmp_path / "run")
    assert first == pytest.approx(second, nan_ok=True)
    with start_runtime("cpu") as runtime:
        _, in_order = trained_on(runtime, tmp_path / "alone")
    assert truth == in_order, "the counts are in the order of the images"
    rows = [read_rows(tmp_path / folder / "metrics.jsonl")[0]["loss"] for folder in ("run", "alone")]
    assert rows[0] == pytest.approx(rows[1], rel=0.05)  # the ranks' dropout differs


def test_norms_are_measured_over_training_crops(read: ReadBackbone) -> None:
    """With one batch of all crops the stem's statistics are the mean over them."""
    recipe = replace(RECIPE, batch=6, precise_batches=1, design=replace(DESIGN, align_corners=False))
    transfer = SemanticTransfer(read, task(), recipe)
    segmenter = transfer.build()
    with start_runtime("cpu") as runtime:
        measure_norms(transfer, segmenter, 0, runtime, 0)
        batch = next(transfer.batches(0, 1, runtime, 0))
    images = torch.stack([image for image, _ in batch])
    values = segmenter.backbone.conv1((images / 255 - segmenter.mean) / segmenter.std)
    assert torch.allclose(segmenter.backbone.bn1.running_mean, values.mean((0, 2, 3)), atol=1e-5)


def test_it_learns(tmp_path: Path) -> None:
    """Four images by heart: the loss falls by far."""
    recipe = replace(
        RECIPE, steps=20, batch=4, lr=0.05, drops=(), warm_up=3, crop=CropRecipe((65, 65), (1.0, 1.0))
    )  # fmt: skip
    transfer = SemanticTransfer(read_backbone("random:resnet18:width=16"), task(4, 1), recipe)
    with start_runtime("cpu") as runtime:
        outcome = train_and_evaluate(transfer, runtime, RunOptions(tmp_path / "run"))
    losses = [row["loss"] for row in read_rows(tmp_path / "run" / "metrics.jsonl") if "loss" in row]
    assert np.mean(losses[-4:]) < 0.6 * np.mean(losses[:4]), losses
    assert math.isfinite(outcome.metrics["semantic/mIoU"])
