"""Semantic segmentation in torchvision: trunk, heads, schedule, training, stop and resume."""

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
from support import paths
from support.small_runs import differences, on_ranks
from torch import nn
from torch.nn import functional as F
from torchvision.models.segmentation.deeplabv3 import DeepLabHead
from torchvision.models.segmentation.fcn import FCNHead

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.checkpoints.detectron2_keys import to_detectron2
from siamtransfer.checkpoints.read_backbone import ReadBackbone, read_backbone
from siamtransfer.detection.data.semantic_data import SemanticData
from siamtransfer.detection.detectron2.compat import import_detectron2, is_installed
from siamtransfer.detection.layered_config import read_layered_config
from siamtransfer.detection.metrics.mask_outputs import SemanticOutputs, semantic_metrics
from siamtransfer.detection.tasks.semantic import SemanticTask
from siamtransfer.detection.torchvision.engine import RunOptions, TransferResult, train_and_evaluate
from siamtransfer.detection.torchvision.segmenter import Segmenter, build_segmenter
from siamtransfer.detection.torchvision.segmenter_recipe import (
    Head,
    SegmenterDesign,
    SegmenterRecipe,
    keys_not_read,
    segmenter_recipe_of,
)
from siamtransfer.detection.torchvision.semantic import SemanticTransfer
from siamtransfer.detection.torchvision.training import measure_norms
from siamtransfer.detection.torchvision.training_crops import TrainingCrops
from siamtransfer.detection.torchvision.trunk import prove_loaded
from siamtransfer.distributed.runtime import Runtime, start_runtime
from siamtransfer.segmentation.data.scenes import SceneMasks
from siamtransfer.segmentation.random_crop import CropRecipe
from siamtransfer.training.journal import read_rows
from siamtransfer.utils.errors import UserError

CONFIGS = paths.CONFIGS / "detection"
DESIGN = SegmenterDesign(output_stride=8, align_corners=True, short_side=0)
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


def settings_of(name: str, *more: str) -> dict[str, Any]:
    layered = read_layered_config([CONFIGS / f"{name}.yaml"], more)
    return {key: stated.value for key, stated in layered.items()}


def dilations(segmenter: Segmenter) -> list[list[int]]:
    """The dilations of the 3x3 convolutions of layer3 and of layer4."""
    return [
        [m.dilation[0] for m in stage.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
        for stage in (segmenter.backbone.layer3, segmenter.backbone.layer4)
    ]


@pytest.mark.parametrize(
    ("stride", "contracted", "expected"),
    [
        (32, False, [[1, 1, 1, 1], [1, 1, 1, 1]]),
        (16, False, [[1, 1, 1, 1], [2, 2, 2, 2]]),
        (8, False, [[2, 2, 2, 2], [4, 4, 4, 4]]),
        (8, True, [[1, 2, 2, 2], [2, 4, 4, 4]]),
    ],
)
def test_the_trunk_is_dilated_and_holds_the_weights(
    read: ReadBackbone, stride: int, contracted: bool, expected: list[list[int]]
) -> None:
    segmenter = build_segmenter(read, 3, replace(DESIGN, output_stride=stride, contracted=contracted), 255)
    assert dilations(segmenter) == expected
    assert differences(segmenter.backbone.state_dict(), read.state) == []
    images = torch.zeros(2, 3, 65, 97, dtype=torch.uint8)
    assert segmenter.eval()(images)["out"].shape == (2, 3, 64 // stride + 1, 96 // stride + 1)
    assert segmenter.predict(images, (40, 50)).shape == (2, 40, 50)


def test_small_stems_count_from_their_own_stride() -> None:
    read = read_backbone("random:resnet18:width=8:stem=small")
    segmenter = build_segmenter(read, 3, DESIGN, 255).eval()
    images = torch.zeros(1, 3, 33, 33, dtype=torch.uint8)
    assert segmenter.stride == 2 and segmenter(images)["out"].shape[-2:] == (17, 17)


def test_a_tensor_that_did_not_arrive_is_named(read: ReadBackbone) -> None:
    for norm in ("own", "frozen"):
        segmenter = build_segmenter(read, 3, replace(DESIGN, trunk_norm=norm), 255)  # type: ignore[arg-type]
        segmenter.backbone.layer2[0].bn1.weight.data[0] += 1e-3
        with pytest.raises(UserError, match=r"1 tensors of the trunk .*, layer2.0.bn1.weight for one"):
            prove_loaded(segmenter.backbone, read)


@pytest.mark.detectron2
@pytest.mark.skipif(not is_installed(), reason="Detectron2 is not installed")
@pytest.mark.parametrize(("depth", "config"), [(18, "base-fcn16"), (50, "base-fcn-d8")])
def test_all_but_the_head_is_detectron2s(depth: int, config: str) -> None:
    """With the same heads and weights the losses and the predicted masks are those of Detectron2."""
    import_detectron2()
    from detectron2.modeling import META_ARCH_REGISTRY

    from siamtransfer.detection.detectron2.segmentor import register_segmentors
    from siamtransfer.detection.detectron2.settings import build_settings
    from siamtransfer.detection.detectron2.trunk import register_trunks

    register_trunks()
    register_segmentors()
    read = read_backbone(f"random:resnet{depth}:width=8")
    stem = ["MODEL.RESNETS.STEM_OUT_CHANNELS", "8", "MODEL.RESNETS.WIDTH_PER_GROUP", "8"]
    out = ["MODEL.RESNETS.RES2_OUT_CHANNELS", "8" if depth == 18 else "32", "MODEL.RESNETS.NORM", "BN"]
    rest = ["MODEL.SEM_SEG_HEAD.NORM", "BN", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "5", "MODEL.DEVICE", "cpu"]
    pixels = [
        "MODEL.RESNETS.STRIDE_IN_1X1",
        "False",
        "INPUT.FORMAT",
        "RGB",
        "MODEL.RESNETS.DEPTH",
        str(depth),
    ]
    layered = read_layered_config([CONFIGS / f"{config}.yaml"], [*stem, *out, *rest, *pixels])
    cfg = build_settings(layered)
    cfg.MODEL.PIXEL_MEAN = [255 * value for value in read.normalisation.mean]
    cfg.MODEL.PIXEL_STD = [255 * value for value in read.normalisation.std]
    theirs: Any = META_ARCH_REGISTRY.get("FCNSegmentor")(cfg)
    design = segmenter_recipe_of({key: stated.value for key, stated in layered.items()}, "fcn").design
    ours = build_segmenter(read, 5, design, 255)
    theirs.backbone.load_state_dict({to_detectron2(name): value for name, value in read.state.items()})
    theirs.sem_seg_head.main, theirs.sem_seg_head.auxiliary = ours.head, ours.auxiliary
    assert (ours.auxiliary is not None) == (config == "base-fcn-d8")
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, 70, 91), generator=generator, dtype=torch.uint8)
    targets = torch.randint(0, 5, (2, 70, 91), generator=generator)
    targets[:, :9] = 255
    torch.manual_seed(1)  # of the dropout
    found = ours.train()(images, targets)
    torch.manual_seed(1)
    expected = theirs.train()(
        [{"image": image, "sem_seg": mask} for image, mask in zip(images, targets, strict=True)]
    )
    assert found.keys() == expected.keys()
    for name, loss in expected.items():
        torch.testing.assert_close(found[name], loss, rtol=1e-4, atol=1e-5)
    ours.eval()
    with torch.no_grad():
        (logits,) = theirs.eval()([{"image": images[0], "height": 41, "width": 60}])
        agree = ours.predict(images[:1], (41, 60))[0] == logits["sem_seg"].argmax(0)
    assert agree.float().mean() > 0.999, "equal but for ties in the last bits"


def test_the_heads_are_torchvisions(read: ReadBackbone) -> None:
    fcn = build_segmenter(read, 5, replace(DESIGN, auxiliary="res4"), 255)
    assert type(fcn.head) is FCNHead and fcn.head[-1].out_channels == 5
    assert isinstance(fcn.auxiliary, FCNHead) and fcn.auxiliary[0].in_channels == 32
    for stride, rates in ((8, [12, 24, 36]), (16, [6, 12, 18])):
        deep = build_segmenter(read, 5, replace(DESIGN, head="deeplab", output_stride=stride), 255)
        assert type(deep.head) is DeepLabHead
        dilated = [m.dilation[0] for m in deep.head.modules() if isinstance(m, nn.Conv2d)]
        assert [rate for rate in dilated if rate > 1] == rates


def test_losses_by_hand(read: ReadBackbone) -> None:
    """The loss of the head on the last stage, and the weighted one of the auxiliary head on res4."""
    design = replace(DESIGN, align_corners=False, auxiliary="res4", auxiliary_weight=0.4, weight=2.0)
    segmenter = build_segmenter(read, 5, design, 255)
    for module in segmenter.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    images = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0)).byte()
    targets = torch.randint(0, 5, (2, 64, 64), generator=torch.Generator().manual_seed(1))
    targets[0] = 255
    losses = segmenter(images, targets)
    mean, std = (torch.tensor(values)[:, None, None] for values in read.normalisation)
    *_, c4, c5 = segmenter.backbone.stages((images / 255 - mean) / std)
    assert segmenter.auxiliary is not None
    for name, weight, logits in (
        ("loss_sem_seg", 2.0, segmenter.head(c5)),
        ("loss_sem_seg_aux", 0.4, segmenter.auxiliary(c4)),
    ):
        resized = F.interpolate(logits, size=(64, 64), mode="bilinear")
        expected = weight * F.cross_entropy(resized[1:], targets[1:])
        torch.testing.assert_close(losses[name], expected)
    assert set(segmenter.eval()(images)) == {"out"}


def test_frozen_norms_neither_learn_nor_follow(read: ReadBackbone) -> None:
    segmenter = build_segmenter(read, 5, replace(DESIGN, trunk_norm="frozen"), 255).train()
    assert not any("bn" in name for name, _ in segmenter.backbone.named_parameters())
    before = {name: value.clone() for name, value in segmenter.backbone.named_buffers()}
    segmenter(torch.randint(0, 256, (2, 3, 64, 64)).byte(), torch.zeros(2, 64, 64, dtype=torch.int64))
    assert len(before) == 4 * 20
    assert all(torch.equal(value, before[name]) for name, value in segmenter.backbone.named_buffers())


def test_recipes_of_the_shipped_files() -> None:
    voc = segmenter_recipe_of(settings_of("voc12-fcn16"), "fcn")
    assert (voc.steps, voc.batch, voc.lr, voc.drops) == (30_000, 16, 0.003, (21_000, 27_000))
    assert voc.design == SegmenterDesign(output_stride=16, align_corners=True, short_side=0)
    assert voc.crop == CropRecipe((513, 513), (0.5, 2.0)) and voc.precise_batches == 0
    d8 = segmenter_recipe_of(settings_of("voc12-fcn-d8-20k"), "deeplab")
    assert d8.design == SegmenterDesign(
        head="deeplab", output_stride=8, contracted=True, auxiliary="res4", over_ignored=True,
        short_side=512, long_side=2048,
    )  # fmt: skip
    assert d8.crop == CropRecipe((512, 512), (0.5, 2.0), 512, 2048, 0.75, colour=True)
    assert (d8.polynomial, d8.end_lr, d8.norm_weight_decay) == (0.9, 1e-4, 5e-4)
    assert keys_not_read(settings_of("scenes-fcn")) == [
        f"MODEL.SEM_SEG_HEAD.{key}" for key in ("CONVS_DIM", "DILATION", "NUM_CONVS")
    ]
    own = segmenter_recipe_of(settings_of("scenes-fcn", "INPUT.RANDOM_FLIP", "none"), "fcn")
    assert not own.crop.flip and own.design.output_stride == 8


def test_polynomial_rate() -> None:
    recipe = SegmenterRecipe(lr=0.01, steps=50, warm_up=0, polynomial=0.9, end_lr=1e-4)
    expected = [(0.01 - 1e-4) * (1 - step / 50) ** 0.9 + 1e-4 for step in range(50)]
    assert [recipe.lr_at(step) for step in range(50)] == pytest.approx(expected)


@pytest.mark.detectron2
@pytest.mark.skipif(not is_installed(), reason="Detectron2 is not installed")
def test_rates_with_warm_up_are_detectron2s() -> None:
    import_detectron2()
    from detectron2.solver import build_lr_scheduler

    from siamtransfer.detection.detectron2.own_keys import default_settings
    from siamtransfer.detection.detectron2.poly_lr import build_poly_lr

    keys = {"MAX_ITER": 40, "STEPS": (20, 30), "WARMUP_ITERS": 15, "BASE_LR": 0.02, "POLY_END_LR": 0.001}
    for name, build in (("WarmupMultiStepLR", build_lr_scheduler), ("PolyLR", build_poly_lr)):
        cfg = default_settings()
        cfg.SOLVER.update(keys | {"LR_SCHEDULER_NAME": name})
        stated = {f"SOLVER.{key}": cfg.SOLVER[key] for key in (*keys, "LR_SCHEDULER_NAME")}
        recipe = segmenter_recipe_of({**stated, "SOLVER.STEPS": [20, 30]}, "fcn")
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.02)
        scheduler = build(cfg, optimizer)
        for step in range(40):
            assert recipe.lr_at(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)
            optimizer.step()
            scheduler.step()


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("MODEL.RESNETS.RES5_DILATION", 3, "are 1 and 3; take 1 and 1, 1 and 2"),
        ("MODEL.META_ARCHITECTURE", "SemanticSegmentor", "torchvision's engine has 'FCNSegmentor' only"),
        ("MODEL.BACKBONE.FREEZE_AT", 2, "FREEZE_AT is 2, and torchvision's engine has 0 only"),
        ("MODEL.SEM_SEG_HEAD.IN_FEATURES", ["res4"], r"give \(.res5.,\), which is all"),
        ("MODEL.SEM_SEG_HEAD.AUX_IN_FEATURE", "res5", "take res2, res3, res4, or '' for none"),
        ("MODEL.RESNETS.NORM", "GN", "NORM is 'GN', .* take FrozenBN, SyncBN"),
        ("MODEL.SEM_SEG_HEAD.NORM", "FrozenBN", "take SyncBN, nnSyncBN, naiveSyncBN, BN, or"),
        ("SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR", "has WarmupMultiStepLR and PolyLR"),
        ("SOLVER.CLIP_GRADIENTS.ENABLED", True, "CLIP_GRADIENTS.ENABLED is True"),
        ("INPUT.RANDOM_FLIP", "vertical", "mirrored by horizontal or none"),
        ("INPUT.MASKS.SCALES", (2.0, 0.5), r"INPUT\.MASKS\.SCALES is \(2\.0, 0\.5\)"),
        ("SOLVER.MAX_ITER", "many", "SOLVER.MAX_ITER is 'many', and it has to be a int"),
        ("DATALOADER.NUM_WORKERS", -1, "NUM_WORKERS is -1; give a whole number from 0 on"),
    ],
)
def test_settings_that_are_refused(key: str, value: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        segmenter_recipe_of({**settings_of("base-fcn16"), key: value}, "fcn")


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
