"""DINO against the published code, its schedules and safeguards, ViTs, and two ranks against one.

The golden numbers are facebookresearch/dino's (commit 7c446df) at small size; no line of that code is here.
"""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import timm
import torch
from support.golden_methods import (
    ALONE,
    DTYPES,
    FIRST,
    FOLDER,
    FULL_BACKBONE,
    FULL_TARGET,
    Golden,
    Outcome,
    TinyBackbone,
    assert_close,
    assert_same_gradients,
    assert_same_outcome,
    assert_trained_like,
    random_views,
    train,
    two_steps,
)
from support.small_runs import on_ranks
from torch import Tensor, nn

from siamtransfer.distributed.runtime import Runtime
from siamtransfer.methods.base import StepInfo
from siamtransfer.methods.dino import DINO, DINOConfig, teacher_temperature
from siamtransfer.utils.errors import UserError

FIRST_NAMES = {
    "backbone.": "student.backbone.",
    "head.": "student.head.",
    "target_backbone.": "teacher.backbone.",
    "target_head.": "teacher.head.",
}
FULL_NAMES = {
    **FULL_BACKBONE,
    **FULL_TARGET,
    "center": "buffer:center",
    **{
        f"{ours}.{part}": f"{theirs}{published}"
        for ours, theirs in (("head", ""), ("target_head", "target."))
        for part, published in {
            "mlp.0.": "projector.linear1.",
            "mlp.2.": "projector.linear2.",
            "mlp.4.": "projector.linear3.",
            "last_layer.": "last_layer.",
        }.items()
    },
}
# file: names, settings, and the epoch that the golden run was in (of 100 steps)
SETS: dict[str, tuple[dict[str, str], dict[str, Any], int]] = {
    "dino.npz": (
        FIRST_NAMES,
        {
            "hidden": 32, "dim": 24, "bottleneck": 16, "momentum": 0.99, "clip": 0,
            "freeze_last_layer_epochs": 0, "teacher_temperature": 0.04, "teacher_warmup_epochs": 0,
        },
        0,
    ),
    "full/dino.npz": (
        FULL_NAMES,
        {
            "hidden": 24, "dim": 20, "bottleneck": 8, "momentum": 0.97, "clip": 0, "teacher_warmup_epochs": 3,
        },
        1,
    ),
    "full/dino_clip_freeze.npz": (
        FULL_NAMES,
        {
            "hidden": 24, "dim": 20, "bottleneck": 8, "momentum": 0.97, "clip": 0.02,
            "teacher_warmup_epochs": 3, "norm_last_layer": False,
        },
        0,
    ),
}  # fmt: skip


def load(file: str) -> tuple[Golden, dict[str, Any], StepInfo]:
    names, settings, epoch = SETS[file]
    return Golden(file, names), settings, StepInfo(100 * epoch, 10**12, 100)


def build(golden: Golden, dtype: torch.dtype, **settings: Any) -> DINO:
    method = DINO(TinyBackbone(), DINOConfig(**settings)).to(dtype)
    golden.fill(method)
    return method


def small(**settings: Any) -> DINO:
    torch.manual_seed(0)
    sizes = {"hidden": 12, "dim": 7, "bottleneck": 6}
    return DINO(TinyBackbone(), DINOConfig(**{**sizes, **settings})).double()


def crops() -> list[Tensor]:
    return random_views(16, 16, 8, 8)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("file", SETS)
def test_outputs_loss_centre_and_every_gradient_equal_the_published_code(file, dtype):
    golden, settings, info = load(file)
    method = build(golden, dtype, **settings)
    said: dict[str, Tensor] = {}
    for name in ("head", "target_head"):
        getattr(method, name).register_forward_hook(
            lambda module, inputs, out, name=name: said.update({name: out[1]})
        )
    method.before_forward(info)
    out = method(golden.views(0, dtype))
    assert_close(said["head"], golden.get("out", "student_out", dtype), dtype, "student")
    assert_close(said["target_head"], golden.get("out", "teacher_out", dtype), dtype, "teacher")
    assert_close(out.loss, golden.losses(dtype)[0], dtype, "loss")
    if golden.full:
        assert_close(method.center, golden.get("out", "center_after", dtype), dtype, "centre")
    out.loss.backward()
    method.before_update(info)
    assert_same_gradients(method, golden, dtype)


@pytest.mark.parametrize("file", SETS)
def test_five_training_steps_equal_the_published_code(file):
    golden, settings, info = load(file)
    for dtype in golden.trained_in():
        method = build(golden, dtype, **settings)
        losses = train(method, golden, dtype, info, decay_vectors=not golden.full)
        assert_trained_like(method, golden, dtype, losses, without=() if golden.full else ("center",))
        if not golden.full:
            assert_close(method.center, golden.arrays["final_state/center"], dtype, "centre")


def test_the_golden_file_notices_a_teacher_that_moves_before_the_step():
    golden, settings, info = load("full/dino.npz")
    method = build(golden, torch.float64, **settings)
    after, method.after_update = method.after_update, lambda info: None  # type: ignore[method-assign]
    before = method.before_forward
    method.before_forward = lambda info: (after(info), before(info))[1]  # type: ignore[method-assign]
    losses = train(method, golden, torch.float64, info, decay_vectors=False)
    assert (losses - golden.losses(torch.float64)).abs().max() > 1e-5


def published_schedule(name: str) -> list[float]:
    schedules = json.loads((FOLDER.parent / "schedules_full.json").read_text())
    return schedules["ema_momentum"][name]["values"]


def test_teacher_temperature_follows_the_published_schedule():
    theirs = published_schedule("dino_teacher_temperature")
    config = DINOConfig(teacher_warmup_epochs=3)
    assert [teacher_temperature(config, epoch) for epoch in range(12)] == pytest.approx(theirs, abs=1e-15)
    assert teacher_temperature(DINOConfig(teacher_warmup_epochs=1), 0) == 0.04
    assert teacher_temperature(DINOConfig(teacher_warmup_epochs=0), 0) == 0.07


def test_momentum_follows_the_published_schedule():
    """A teacher of zeros and a student of ones: what the teacher is after a step is 1 - momentum."""
    theirs = published_schedule("dino")
    method, ours = small(), []
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.fill_(1)
    for step in range(len(theirs)):
        method.target_head.last_layer.weight_v.data.zero_()
        method.after_update(StepInfo(step, len(theirs), 7))
        ours.append(1 - method.target_head.last_layer.weight_v.data[0, 0].item())
    assert ours == pytest.approx(theirs, abs=1e-14)


def test_uniform_outputs_have_the_loss_ln_k_whatever_the_number_of_crops():
    method = small()
    for head in (method.head, method.target_head):
        head.last_layer.weight_v.data[:] = head.last_layer.weight_v.data[0]
    for count in (2, 4):
        assert method(crops()[:count]).loss.item() == pytest.approx(math.log(7), abs=1e-12)


def test_the_loss_is_the_mean_over_two_times_v_plus_one_pairs():
    method = small()
    said: list[Tensor] = []
    for head in (method.target_head, method.head):
        head.register_forward_hook(lambda module, inputs, out: said.append(out[1].detach()))
    loss = method(crops()).loss
    targets = (said[0] / 0.04).softmax(dim=1).chunk(2)
    predictions = (said[1] / 0.1).log_softmax(dim=1).chunk(4)
    pairs = [(i, v) for i in range(2) for v in range(4) if i != v]
    assert len(pairs) == 6
    expected = sum(-(targets[i] * predictions[v]).sum() / 8 for i, v in pairs) / 6
    torch.testing.assert_close(loss, expected)


def test_the_centre_moves_a_tenth_of_the_way_to_a_constant_output():
    method = small()
    constant = torch.arange(7, dtype=torch.float64).expand(16, 7)
    for step in range(1, 4):
        method.move_center(constant)
        torch.testing.assert_close(method.center, (1 - 0.9**step) * constant[0])


def test_the_centre_and_the_teacher_take_no_gradient():
    method = small()
    method(crops()).loss.backward()
    frozen = [name for name, p in method.named_parameters() if not p.requires_grad]
    assert all(name.startswith("target_") or name == "head.last_layer.weight_g" for name in frozen)
    assert all(p.grad is None for p in method.target_backbone.parameters())
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)


def test_the_teacher_sees_global_views_only():
    method, seen = small(), []
    method.target_backbone.register_forward_hook(lambda module, inputs, out: seen.append(inputs[0].shape))
    method(crops())
    assert seen == [(16, 3, 16, 16)]


def test_every_gradient_is_clipped_by_its_own_norm():
    method = small(clip=0.5, freeze_last_layer_epochs=0)
    for size, parameter in enumerate(p for p in method.parameters() if p.requires_grad):
        parameter.grad = torch.full_like(parameter, size / 10 / parameter.numel() ** 0.5)  # of norm size / 10
    method.before_update(FIRST)
    norms = [p.grad.norm().item() for p in method.parameters() if p.grad is not None]
    assert norms == pytest.approx([min(size / 10, 0.5) for size in range(len(norms))], abs=1e-5)


def test_the_last_layer_waits_for_its_epoch():
    method = small(clip=0, freeze_last_layer_epochs=2)
    for epoch, frozen in ((1, True), (2, False)):
        method(crops()).loss.backward()
        method.before_update(StepInfo(10 * epoch, 100, 10))
        assert (method.head.last_layer.weight_v.grad is None) == frozen
        assert method.head.mlp[0].weight.grad is not None


def test_rows_of_the_last_layer_have_unit_length_unless_their_lengths_are_trained():
    method = small()
    method.head.last_layer.weight_v.data *= 9
    rows = method.head.last_layer(torch.eye(6, dtype=torch.float64)).T
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(7, dtype=torch.float64))
    assert small(norm_last_layer=False).head.last_layer.weight_g.requires_grad


def test_head_initialisation_and_batch_norm():
    config = DINOConfig(hidden=512, dim=64, bottleneck=256)
    head = DINO(TinyBackbone(), config).head
    assert [type(layer) for layer in head.mlp] == [nn.Linear, nn.GELU, nn.Linear, nn.GELU, nn.Linear]
    assert head.mlp[2].weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert not head.mlp[2].bias.any()
    with_norm = DINO(TinyBackbone(), DINOConfig(hidden=8, dim=4, bottleneck=4, batch_norm=True)).head
    assert [type(layer) for layer in with_norm.mlp[:3]] == [nn.Linear, nn.BatchNorm1d, nn.GELU]


class TinyViT(nn.Module):
    """A timm ViT of two blocks for images of 32 pixels that takes others too, with stochastic depth."""

    dim = 16

    def __init__(self, drop_path: float) -> None:
        super().__init__()
        self.model = timm.models.VisionTransformer(
            img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=0,
            drop_path_rate=drop_path, dynamic_img_size=True,
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def vit_crops() -> list[Tensor]:
    return [torch.randn(4, 3, size, size) for size in (32, 32, 16, 16, 16)]


def test_a_vit_trains_on_crops_of_two_sizes():
    method = DINO(TinyViT(0.0), DINOConfig(hidden=12, dim=7, bottleneck=6, freeze_last_layer_epochs=0))
    out = method(vit_crops())
    assert [z.shape for z in out.projections] == [(4, 6)] * 5
    out.loss.backward()
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)


def test_stochastic_depth_is_the_students_alone():
    method, views = DINO(TinyViT(0.9), DINOConfig(hidden=12, dim=7, bottleneck=6)), vit_crops()
    assert not torch.equal(method.backbone(views[0]), method.backbone(views[0]))
    assert torch.equal(method.target_backbone(views[0]), method.target_backbone(views[0]))
    assert method.target_backbone.training


def test_bfloat16_networks_give_a_float32_loss():
    method = small().float()
    views = [x.float() for x in crops()]
    exact = method(views).loss
    method.center.zero_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = method(views)
    assert out.loss.dtype == torch.float32
    assert out.loss.item() == pytest.approx(exact.item(), abs=0.02)


def run(runtime: Runtime, batch_norm: bool) -> Outcome:
    method = small(batch_norm=batch_norm, clip=0, freeze_last_layer_epochs=0, momentum=0.5)
    return two_steps(method, crops(), runtime)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_two_ranks_are_one(batch_norm):
    for outcome in on_ranks(run, batch_norm):
        assert_same_outcome(outcome, run(ALONE, batch_norm))


@pytest.mark.parametrize(
    "settings", [{"layers": 0}, {"teacher_temperature_start": 0.0}, {"clip": -1.0}, {"momentum": 1.1}]
)
def test_options_that_mean_nothing_are_refused(settings):
    with pytest.raises(UserError, match=f"dino.{next(iter(settings))}"):
        DINOConfig(**settings).check(64)
    DINOConfig().check(64)


def test_published_sizes():
    backbone = TinyBackbone()
    backbone.dim = 384
    with torch.device("meta"):
        method = DINO(backbone, DINOConfig())
    shapes = {name: tuple(p.shape) for name, p in method.head.named_parameters() if "weight" in name}
    assert shapes == {
        "mlp.0.weight": (2048, 384),
        "mlp.2.weight": (2048, 2048),
        "mlp.4.weight": (256, 2048),
        "last_layer.weight_g": (65536, 1),
        "last_layer.weight_v": (65536, 256),
    }
