"""Detection in torchvision: weights that arrive, the data, the schedule, training, stop and resume."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import paths
from support.small_runs import on_ranks
from support.thorough import more

from siamtransfer.backbones.resnet import ResNetBackbone
from siamtransfer.checkpoints.file_format import Normalisation
from siamtransfer.checkpoints.read_backbone import ReadBackbone, digest_of, load_backbone, read_backbone
from siamtransfer.checkpoints.reading import Fact
from siamtransfer.data.scenes.export import SceneCounts
from siamtransfer.detection.data.dataset_split import corners, read_image
from siamtransfer.detection.data.datasets import DetectionData, open_detection_data
from siamtransfer.detection.detectron2.compat import import_detectron2, is_installed
from siamtransfer.detection.layered_config import read_layered_config
from siamtransfer.detection.metrics.instance_outputs import InstanceOutputs
from siamtransfer.detection.metrics.prediction import Prediction
from siamtransfer.detection.metrics.score_predictions import score_predictions
from siamtransfer.detection.tasks.instances import InstancesTask
from siamtransfer.detection.torchvision.engine import RunOptions, TransferResult, train_and_evaluate
from siamtransfer.detection.torchvision.instances import InstancesTransfer
from siamtransfer.detection.torchvision.model import Design, as_input, build_detector, predict
from siamtransfer.detection.torchvision.recipe import DetectorRecipe, recipe_of
from siamtransfer.detection.torchvision.training import measure_norms
from siamtransfer.detection.torchvision.training_images import TrainingImages, usable
from siamtransfer.detection.torchvision.trunk import prove_loaded
from siamtransfer.distributed.runtime import Runtime, start_runtime
from siamtransfer.training import step as training_step
from siamtransfer.training.journal_file import JournalFile
from siamtransfer.training.journal_rows import read_rows
from siamtransfer.utils.errors import UserError

CONFIGS = paths.CONFIGS / "detection"
SMALL = Design(
    masks=True, channels=16, hidden=32, anchors=(12, 18, 24, 36, 48), proposals=(40, 30), sampled=32,
    short_sides=(64, 72), short_side=64, long_side=96,
)  # fmt: skip
RECIPE = DetectorRecipe(
    SMALL, steps=4, batch=2, lr=0.01, drops=(3,), warm_up=2, precise_batches=2, save_every=2, log_every=1
)


@pytest.fixture(scope="module")
def data() -> DetectionData:
    scenes = SceneCounts(train=8, test=4, size=64, seed=0)
    return open_detection_data("fashion-scenes", "fashion-scenes", kind="coco", scenes=scenes)


@pytest.fixture(scope="module")
def read() -> ReadBackbone:
    return read_backbone("random:resnet18:width=8")


def train(
    read: ReadBackbone, data: DetectionData, recipe: DetectorRecipe = RECIPE, **options: Any
) -> TransferResult:
    with start_runtime("cpu") as runtime:
        return train_and_evaluate(transfer(read, data, recipe), runtime, RunOptions(**options))


def transfer(read: ReadBackbone, data: DetectionData, recipe: DetectorRecipe) -> InstancesTransfer:
    return InstancesTransfer(read, InstancesTask(data, "coco"), recipe)


def detections(result: TransferResult) -> Sequence[Prediction]:
    assert isinstance(result.outputs, InstanceOutputs)
    return result.outputs.predictions


@pytest.mark.parametrize(
    "source", ["random:resnet18:width=8", "random:resnet50:width=8", "random:resnet18:width=8:stem=small"]
)
def test_trunk_is_the_backbone(source: str) -> None:
    backbone, read = load_backbone(source)
    assert isinstance(backbone, ResNetBackbone)
    detector = build_detector(read, 3, SMALL).eval()
    assert digest_of(detector.backbone.body.state_dict()) == read.digest
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        found = detector.backbone.body(x)
        for level, stage in enumerate(backbone.stages(x)):
            assert torch.equal(found[str(level)], stage)
        assert [len(detector([x[0]])[0][key]) > 0 for key in ("boxes", "masks")] == [True, True]
    trained = {name for name, value in detector.named_parameters() if value.requires_grad}
    assert trained == {name for name, _ in detector.named_parameters()}  # nothing is frozen


@pytest.mark.parametrize("name", ["timm:test_convnext", "timm:test_efficientnet"])
def test_networks_of_timm_have_a_pyramid(name: str) -> None:
    backbone, read = load_backbone(f"random:{name}:seed=4")
    detector = build_detector(read, 3, SMALL).eval()
    assert digest_of(detector.backbone.body.bottom_up.state_dict()) == read.digest
    x = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected = backbone.model.forward_intermediates(x, intermediates_only=True)[-4:]
        for features, theirs in zip(detector.backbone.body.bottom_up(x), expected, strict=True):
            torch.testing.assert_close(features, theirs)
        levels = detector.backbone(x)
        assert {level: tuple(found.shape[1:]) for level, found in levels.items()} == {
            "0": (16, 16, 24), "1": (16, 8, 12), "2": (16, 4, 6), "3": (16, 2, 3), "pool": (16, 1, 2),
        }  # fmt: skip
        assert [len(detector([x[0]])[0][key]) > 0 for key in ("boxes", "masks")] == [True, True]
    resting = {key for key, value in detector.named_parameters() if not value.requires_grad}
    assert {key.split(".")[4] for key in resting} <= {"head", "conv_head", "bn2"} and resting
    tampered = detector.backbone.body.bottom_up
    next(iter(tampered.parameters())).data.flatten()[0] += 1e-3
    with pytest.raises(UserError, match=r"1 tensors of the trunk are not those of random:timm:"):
        prove_loaded(tampered, read)


def test_a_tensor_that_did_not_arrive_is_named(read: ReadBackbone) -> None:
    detector = build_detector(read, 3, SMALL)
    detector.backbone.body["layer2"][0].conv1.weight.data[0, 0, 0, 0] += 1e-3
    with pytest.raises(
        UserError, match=r"1 tensors of the trunk are not those of random:.*, layer2.0.conv1.weight for one"
    ):
        prove_loaded(detector.backbone.body, read)


def test_what_cannot_be_built(read: ReadBackbone, data: DetectionData) -> None:
    with pytest.raises(UserError, match=r"holds a network that no detector is built on: visformer_tiny has"):
        build_detector(read_backbone("random:visformer_tiny"), 3, SMALL)
    for source in ("random:resnet18:width=8:channels=4", "random:timm:test_convnext:channels=1"):
        with pytest.raises(UserError, match=r"images of [41] channels, and detectors take three"):
            transfer(read_backbone(source), data, RECIPE).check(1)
    with pytest.raises(UserError, match="has 5 levels and 3 anchor sizes were given"):
        build_detector(read, 3, replace(SMALL, anchors=(8, 16, 32)))


def test_images_are_normalised_as_the_weights_want(read: ReadBackbone) -> None:
    stated = Fact(Normalisation((0.1, 0.2, 0.3), (0.5, 0.6, 0.7)), "the test")
    own = replace(read, reading=replace(read.reading, normalisation=stated))
    detector = build_detector(own, 3, SMALL)
    white = as_input(np.full((64, 64, 3), 255, np.uint8))
    images, _ = detector.eval().transform([white])
    assert images.tensors[0, :, 32, 32].tolist() == pytest.approx([0.9 / 0.5, 0.8 / 0.6, 0.7 / 0.7])


def test_training_images_are_mirrored_with_their_objects(data: DetectionData) -> None:
    images = TrainingImages(data.train, RECIPE)
    mirrored = 0
    for epoch in range(6):
        for index, record in enumerate(data.train):
            image, target = images[epoch, index]
            plain = as_input(read_image(record))
            flipped = not torch.equal(image, plain)
            mirrored += flipped
            assert torch.equal(image, plain.flip(2)) == flipped
            for item, box, label, mask in zip(
                record["annotations"], target["boxes"], target["labels"], target["masks"], strict=True
            ):
                rows, columns = mask.nonzero().T
                tight = [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]
                assert box.tolist() == tight and label == item["category_id"] + 1
                if not flipped:
                    assert box.tolist() == corners(item)
            again, target_again = images[epoch, index]
            assert torch.equal(again, image) and torch.equal(target_again["boxes"], target["boxes"])
    assert 14 <= mirrored <= 34  # of 48


def test_crowds_and_boxes_without_area_do_not_train(data: DetectionData) -> None:
    first, second = (dict(data.train[index]) for index in range(2))
    first["annotations"] = [
        {**first["annotations"][0], "iscrowd": 1},
        {**first["annotations"][0], "bbox": [70, 5, 9, 9]},  # beyond the edge nothing is left
        {**first["annotations"][0], "bbox": [50, 5, 40, 9]},
    ]
    second["annotations"] = first["annotations"][:2]
    assert usable(first) and not usable(second)
    _, target = TrainingImages([first], replace(RECIPE, design=replace(SMALL, masks=False)))[0, 0]
    assert sorted(target["boxes"][0, [0, 2]].tolist()) in ([0, 14], [50, 64]) and len(target["labels"]) == 1


def test_rate_by_hand() -> None:
    recipe = DetectorRecipe(lr=0.02, warm_up=100, warm_up_from=0.001, drops=(18000, 22000))
    assert recipe.lr_at(0) == pytest.approx(0.02 * 0.001)
    assert recipe.lr_at(50) == pytest.approx(0.02 * 0.5005)
    assert recipe.lr_at(100) == recipe.lr_at(17999) == 0.02
    assert recipe.lr_at(18000) == pytest.approx(0.002) and recipe.lr_at(23999) == pytest.approx(0.0002)


@pytest.mark.detectron2
@pytest.mark.skipif(not is_installed(), reason="Detectron2 is not installed")
def test_rate_is_detectron2s() -> None:
    import_detectron2()
    from detectron2.config import get_cfg
    from detectron2.solver import build_lr_scheduler

    cfg = get_cfg()
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS, cfg.SOLVER.WARMUP_ITERS = 40, (20, 30), 15
    cfg.SOLVER.BASE_LR = 0.02
    keys = ("MAX_ITER", "STEPS", "WARMUP_ITERS", "BASE_LR", "WARMUP_FACTOR")
    recipe = recipe_of({f"SOLVER.{key}": cfg.SOLVER[key] for key in keys})
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.02)
    scheduler = build_lr_scheduler(cfg, optimizer)
    for step in range(40):
        assert recipe.lr_at(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)
        optimizer.step()
        scheduler.step()


def test_recipe_from_the_published_files() -> None:
    def of(name: str) -> DetectorRecipe:
        return recipe_of(
            {key: stated.value for key, stated in read_layered_config([CONFIGS / name], []).items()}
        )

    fpn = of("coco-fpn-1x.yaml")
    assert (fpn.steps, fpn.drops, fpn.batch, fpn.lr) == (90_000, (60_000, 80_000), 16, 0.02)
    assert fpn.design.masks and fpn.design.short_sides == (640, 672, 704, 736, 768, 800)
    voc = of("voc0712-c4-24k.yaml")
    assert (voc.steps, voc.drops, voc.warm_up) == (24_000, (18_000, 22_000), 100)
    assert not voc.design.masks and len(voc.design.short_sides) == 11
    with pytest.raises(UserError, match="META_ARCHITECTURE is 'RetinaNet', and torchvision's engine has"):
        of("coco-retinanet-1x.yaml")


def test_keys_are_read_or_refused() -> None:
    recipe = recipe_of(
        {
            "SOLVER.STEPS": [5, 7],
            "SOLVER.BASE_LR": 1,
            "TEST.PRECISE_BN.ENABLED": False,
            "INPUT.MIN_SIZE_TRAIN": 96,
            "MODEL.ANCHOR_GENERATOR.SIZES": [[8], [16], [32], [64], [128]],
            "MODEL.RPN.POST_NMS_TOPK_TRAIN": 50,
            "MODEL.RPN.NMS_THRESH": 0.6,
        }
    )
    assert recipe.drops == (5, 7) and recipe.lr == 1.0 and recipe.precise_batches == 0
    assert recipe.design.short_sides == (96,) and recipe.design.anchors == (8, 16, 32, 64, 128)
    assert recipe.design.proposals == (50, 1000)
    for key, value, sentence in (
        ("SOLVER.MAX_ITER", "many", "SOLVER.MAX_ITER is 'many', and it has to be a int"),
        ("MODEL.BACKBONE.FREEZE_AT", 2, "FREEZE_AT is 2, and torchvision's engine has 0 only"),
        ("MODEL.ANCHOR_GENERATOR.SIZES", [[8, 9], [16]], "needs one size a level"),
    ):
        with pytest.raises(UserError, match=sentence):
            recipe_of({key: value})


def test_refused_before_any_work(read: ReadBackbone, data: DetectionData, tmp_path: Path) -> None:
    boxes = open_detection_data(
        "fashion-scenes", "fashion-scenes", kind="voc", scenes=SceneCounts(train=4, test=2, size=64)
    )
    for recipe, set_, sentence in (
        (replace(RECIPE, batch=9), data, "8 images with objects, less than SOLVER.IMS_PER_BATCH 9"),
        (replace(RECIPE, steps=0), data, "SOLVER.MAX_ITER, .* must be above 0"),
        (replace(RECIPE, seed=-1), data, "SEED at least 0"),
        (RECIPE, boxes, "needs a mask of every object"),
    ):
        with pytest.raises(UserError, match=sentence):
            train(read, set_, recipe, run=tmp_path / "run")
    with pytest.raises(UserError, match="16 does not divide over 3 processes"):
        DetectorRecipe().check(100, 3)
    with pytest.raises(UserError, match="name the run folder"):
        train(read, data, evaluate_only=True)
    with pytest.raises(UserError, match=r"holds no detector.pth to evaluate: train first"):
        train(read, data, run=tmp_path / "run", evaluate_only=True)
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def undisturbed(
    read: ReadBackbone, data: DetectionData, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TransferResult, Path]:
    run = tmp_path_factory.mktemp("torchvision") / "run"
    return train(read, data, replace(RECIPE, score_every=2), run=run), run


def test_training(undisturbed: tuple[TransferResult, Path], read: ReadBackbone, data: DetectionData) -> None:
    outcome, run = undisturbed
    state = torch.load(run / "detector.pth", weights_only=True)
    body = {name: value for name, value in state["model"].items() if name.startswith("backbone.body.")}
    moved = [name for name, value in body.items() if not torch.equal(value, read.state[name[14:]])]
    assert set(moved) == set(body)  # every weight, and every statistic
    rows = read_rows(run / "metrics.jsonl")
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4]
    assert [row["lr"] for row in rows if "loss" in row] == pytest.approx([1e-5, 0.005005, 0.01, 0.001])
    for row in rows[:2]:
        parts = ("classifier", "box_reg", "mask", "objectness", "rpn_box_reg")
        assert row["loss"] == pytest.approx(sum(row[f"loss/{part}"] for part in parts), rel=1e-5)
    assert [row["step"] for row in rows if "detection/AP" in row] == [2, 4]
    assert outcome.metrics == pytest.approx(
        score_predictions(detections(outcome), data.test, "coco", data.classes), nan_ok=True
    )
    assert {"detection/AP", "segmentation/AP", "detection/AP/coat"} <= outcome.metrics.keys()
    assert outcome.protocol["engine"] == "torchvision" and outcome.protocol["comparable"] is False
    assert "not Detectron2's" in outcome.protocol["not_comparable"]
    assert outcome.protocol["recipe"]["design"]["channels"] == 16
    json.dumps(outcome.protocol)


def test_evaluate_only_and_resuming_a_finished_run_change_nothing(
    undisturbed: tuple[TransferResult, Path], read: ReadBackbone, data: DetectionData
) -> None:
    outcome, run = undisturbed
    before = {path: path.read_bytes() for path in run.glob("*.*")}
    again = train(read, data, replace(RECIPE, score_every=2), run=run, evaluate_only=True)
    assert again.metrics == pytest.approx(outcome.metrics, nan_ok=True)
    for mine, theirs in zip(detections(again), detections(outcome), strict=True):
        assert np.array_equal(mine["boxes"], theirs["boxes"]) and np.array_equal(
            mine["scores"], theirs["scores"]
        )
    assert {path: path.read_bytes() for path in run.glob("*.*")} == before
    resumed = train(read, data, replace(RECIPE, score_every=2), run=run, resume=True)
    assert resumed.metrics == pytest.approx(outcome.metrics, nan_ok=True)
    assert {path: path.read_bytes() for path in run.glob("*.*")} == before


@pytest.mark.parametrize("within", ["a step", more("a measurement")])
def test_a_stopped_training_goes_on_as_if_it_had_not_been(
    within: str, undisturbed: tuple[TransferResult, Path], read: ReadBackbone, data: DetectionData,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    recipe = replace(RECIPE, score_every=2)
    original, seen = TrainingImages.__getitem__, []

    def signalled(images: TrainingImages, ticket: tuple[int, int]) -> Any:
        seen.append(ticket)
        if within == "a step" and len(seen) == 3:  # the first image of the second step
            os.kill(os.getpid(), signal.SIGTERM)
        return original(images, ticket)

    def measured(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    monkeypatch.setattr(TrainingImages, "__getitem__", signalled)
    if within == "a measurement":  # its norms are measured already
        monkeypatch.setattr(InstancesTransfer, "score", measured)
    with pytest.raises(SystemExit) as stopped:
        train(read, data, recipe, run=tmp_path / "run")
    assert stopped.value.code == 143
    assert "stopped on a signal after step 2 of 4" in capsys.readouterr().err
    monkeypatch.undo()
    with pytest.raises(UserError, match="holds a training that was begun: go on with --resume"):
        train(read, data, recipe, run=tmp_path / "run")
    with pytest.raises(UserError, match="is of another training: rate is"):
        train(read, data, replace(recipe, lr=0.5), run=tmp_path / "run", resume=True)
    other = read_backbone("random:resnet18:width=8:seed=5")
    with pytest.raises(UserError, match="is of another training: weights is"):
        train(other, data, recipe, run=tmp_path / "run", resume=True)
    outcome = train(read, data, recipe, run=tmp_path / "run", resume=True)
    expected, run = undisturbed
    assert outcome.metrics == pytest.approx(expected.metrics, nan_ok=True)
    for name in ("detector.pth", "metrics.jsonl"):
        if name.endswith("jsonl"):
            assert read_rows(tmp_path / "run" / name) == read_rows(run / name)
        else:
            mine, theirs = (
                torch.load(folder / name, weights_only=True) for folder in (tmp_path / "run", run)
            )
            assert digest_of(mine["model"]) == digest_of(theirs["model"])


@pytest.mark.fault
@pytest.mark.thorough
def test_a_journal_without_room_ends_the_training_after_a_save_and_no_row_is_lost(
    undisturbed: tuple[TransferResult, Path], read: ReadBackbone, data: DetectionData,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def no_room(file: JournalFile, row: dict[str, Any]) -> None:
        if row["step"] >= 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        append(file, row)

    append, recipe, run = JournalFile.append, replace(RECIPE, score_every=2), tmp_path / "run"
    monkeypatch.setattr(JournalFile, "append", no_room)
    whole = r"; the state of step 3 is whole: go on with --resume$"
    with pytest.raises(UserError, match=rf"^cannot write {run}/metrics\.jsonl: No space left .*{whole}"):
        train(read, data, recipe, run=run)
    monkeypatch.undo()
    assert [row["step"] for row in read_rows(run / "metrics.jsonl")] == [1]
    outcome = train(read, data, recipe, run=run, resume=True)
    expected, other = undisturbed
    assert outcome.metrics == pytest.approx(expected.metrics, nan_ok=True)
    assert read_rows(run / "metrics.jsonl") == read_rows(other / "metrics.jsonl")
    mine, theirs = (torch.load(folder / "detector.pth", weights_only=True) for folder in (run, other))
    assert digest_of(mine["model"]) == digest_of(theirs["model"])


def trained_on(runtime: Runtime, run: Path, source: str = "random:resnet18:width=8") -> dict[str, float]:
    """Both ranks open the scenes, which neither finds written, and train."""
    scenes = SceneCounts(train=8, test=3, size=64, seed=7)
    data = open_detection_data("fashion-scenes", "fashion-scenes", kind="coco", scenes=scenes)
    small = transfer(read_backbone(source), data, replace(RECIPE, steps=2))
    outcome = train_and_evaluate(small, runtime, RunOptions(run))
    assert [one["image_id"] for one in detections(outcome)] == [9, 11, 10]  # rank 0's, then rank 1's
    return outcome.metrics


@pytest.mark.parametrize("source", ["random:resnet18:width=8", "random:timm:test_efficientnet"])
def test_two_ranks_train_one_detector(tmp_path: Path, source: str) -> None:
    """EfficientNet has an activation in its norms, and layers of which no map is made."""
    first, second = on_ranks(trained_on, tmp_path / "run", source)
    assert first == pytest.approx(second, nan_ok=True) and first["detection/AR100"] >= 0
    assert [row["step"] for row in read_rows(tmp_path / "run" / "metrics.jsonl")] == [1, 2, 2]


def test_a_loss_that_is_not_finite_stops(read: ReadBackbone, data: DetectionData, tmp_path: Path) -> None:
    recipe = replace(RECIPE, lr=1e30, save_every=100)
    with pytest.raises(UserError, match=r"is not finite at step 1 .*lower the learning rate 1e.30"):
        train(read, data, recipe, run=tmp_path / "run")
    assert not (tmp_path / "run" / "detector.pth").exists()


def test_norms_are_measured_over_whole_batches(read: ReadBackbone, data: DetectionData) -> None:
    """With one batch of all images the stem's statistics are the mean over them, whatever they were."""
    recipe = replace(RECIPE, batch=8, precise_batches=1, design=replace(SMALL, short_sides=(64,)))
    detector = build_detector(read, 10, recipe.design)
    whole = transfer(read, data, recipe)
    before = {name: value.clone() for name, value in detector.named_parameters()}
    with start_runtime("cpu") as runtime:
        measure_norms(whole, detector, 0, runtime, 0)
        batch = next(whole.batches(0, 1, runtime, 0))
    inputs, _ = detector.transform([image for image, _ in batch])
    values = detector.backbone.body["conv1"](inputs.tensors).transpose(0, 1).flatten(1)
    norm = detector.backbone.body["bn1"]
    assert torch.allclose(norm.running_mean, values.mean(1), atol=1e-5)
    assert torch.allclose(norm.running_var, values.var(1), rtol=1e-4)
    assert norm.momentum == 0.1
    assert all(torch.equal(value, before[name]) for name, value in detector.named_parameters())
    untouched = build_detector(read, 10, recipe.design)
    with start_runtime("cpu") as runtime:
        measure_norms(transfer(read, data, replace(recipe, precise_batches=0)), untouched, 0, runtime, 0)
    assert digest_of(untouched.backbone.body.state_dict()) == read.digest


def test_predictions_are_in_the_image_s_own_pixels(read: ReadBackbone, data: DetectionData) -> None:
    """A test image that the detector sees twice as large has its boxes and masks in its own size."""
    detector = build_detector(read, 10, replace(SMALL, long_side=200))
    with start_runtime("cpu") as runtime:
        found = predict(detector, data.test, runtime, 128)
    assert detector.transform.min_size == (64, 72)
    for record, one in zip(data.test, found, strict=True):
        assert one["image_id"] == record["image_id"]
        assert one["boxes"].min() >= 0 and 40 < one["boxes"].max() <= 64
        assert one["masks"] is not None
        assert {tuple(mask["size"]) for mask in one["masks"]} == {(64, 64)}
        assert one["classes"].min() >= 0 and one["classes"].max() <= 9


def test_it_learns(data: DetectionData) -> None:
    """Four images by heart: the loss falls by far."""
    few = replace_parts(data, lambda records: records[:4])
    recipe = replace(
        RECIPE, steps=30, batch=4, lr=0.04, drops=(), warm_up=5, precise_batches=1, save_every=30,
        design=replace(SMALL, masks=False, short_sides=(64,), channels=32, hidden=64),
    )  # fmt: skip
    losses: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        step_report = training_step.step_report

        def noted(*arguments: Any) -> Any:
            losses.append(float(arguments[0].detach()))
            return step_report(*arguments)

        patch.setattr(training_step, "step_report", noted)
        outcome = train(read_backbone("random:resnet18:width=16"), few, recipe)
    assert len(losses) == 30 and np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5]), losses
    assert np.isfinite(outcome.metrics["detection/AP"])


def replace_parts(data: DetectionData, change: Callable[[list[Any]], list[Any]]) -> DetectionData:
    parts = tuple(replace(part, records=change(part.records)) for part in data.train_splits)
    return replace(data, train_splits=parts)
