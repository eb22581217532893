"""SwAV against the published code, its codes, queue and frozen prototypes, and two ranks against one.

The golden numbers are facebookresearch/swav's (commit 06b1b7c) at small size; no line of that code is here.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from support.golden_methods import (
    ALONE,
    DTYPES,
    FIRST,
    FULL_BACKBONE,
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
from torch import Tensor

from siamtransfer.distributed.runtime import Runtime
from siamtransfer.methods.base import StepInfo
from siamtransfer.methods.swav import SwAV, SwAVConfig, sinkhorn
from siamtransfer.utils.errors import UserError

FULL_NAMES = {
    **FULL_BACKBONE,
    "projector.0.": "projector.linear1.",
    "projector.1.": "projector.bn1.",
    "projector.3.": "projector.linear2.",
}
SETS = {
    "swav.npz": (
        {"backbone.": "f.", "projector.": "projection_head."},
        {"hidden": 32, "dim": 16, "prototypes": 12},
    ),
    "full/swav.npz": (FULL_NAMES, {"hidden": 24, "dim": 8, "prototypes": 10}),
}
WITH_QUEUE = {
    "hidden": 24, "dim": 8, "prototypes": 10, "queue": 32, "queue_from_epoch": 0, "freeze_prototypes_steps": 2
}  # fmt: skip


def build(golden: Golden, dtype: torch.dtype, **settings: Any) -> SwAV:
    method = SwAV(TinyBackbone(), SwAVConfig(**{"freeze_prototypes_steps": 0, **settings})).to(dtype)
    golden.fill(method)
    return method


def small(**settings: Any) -> SwAV:
    torch.manual_seed(0)
    sizes = {"hidden": 12, "dim": 6, "prototypes": 5, "freeze_prototypes_steps": 0}
    return SwAV(TinyBackbone(), SwAVConfig(**{**sizes, **settings})).double()


def crops() -> list[Tensor]:
    return random_views(16, 16, 8, 8)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("file", SETS)
def test_codes_loss_and_every_gradient_equal_the_published_code(file, dtype):
    names, sizes = SETS[file]
    golden = Golden(file, names)
    method = build(golden, dtype, **sizes)
    method.before_forward(FIRST)
    out = method(golden.views(0, dtype))
    z = torch.cat(out.projections)
    scores = method.prototypes(z)
    assert_close(z, golden.get("out", "embedding" if golden.full else "z", dtype), dtype, "z")
    assert_close(scores, golden.get("out", "scores", dtype), dtype, "scores")
    for view in (0, 1):
        name = f"q{view + 1}" if golden.full else f"assignments_{view}"
        codes = sinkhorn(scores.detach().chunk(4)[view], 0.05, 3)
        assert_close(codes, golden.get("out", name, dtype), dtype, name)
    assert_close(out.loss, golden.losses(dtype)[0], dtype, "loss")
    out.loss.backward()
    assert_same_gradients(method, golden, dtype)


@pytest.mark.parametrize("file", SETS)
def test_five_training_steps_equal_the_published_code(file):
    names, sizes = SETS[file]
    golden = Golden(file, names)
    for dtype in golden.trained_in():
        method = build(golden, dtype, **sizes)
        assert_trained_like(method, golden, dtype, train(method, golden, dtype), without=("queue",))


@pytest.mark.parametrize("dtype", DTYPES)
def test_queue_and_frozen_prototypes_equal_the_published_code(dtype):
    golden = Golden("full/swav_queue.npz", FULL_NAMES)
    method = build(golden, dtype, **WITH_QUEUE)
    method.before_forward(FIRST)
    method(golden.views(0, dtype)).loss.backward()
    method.before_update(FIRST)
    assert_same_gradients(method, golden, dtype)
    assert method.prototypes.weight.grad is None

    method = build(golden, dtype, **WITH_QUEUE)
    losses = train(method, golden, dtype, StepInfo(0, 1000, 100))
    assert_trained_like(method, golden, dtype, losses, without=("queue",))
    suffix = "_f64" if dtype == torch.float64 else ""
    assert_close(method.queue, golden.arrays[f"final_queue{suffix}/queue"], dtype, "queue")


def test_the_golden_queue_notices_a_queue_that_is_never_used():
    golden = Golden("full/swav_queue.npz", FULL_NAMES)
    method = build(golden, torch.float64, **{**WITH_QUEUE, "queue_from_epoch": 1})
    losses = train(method, golden, torch.float64, StepInfo(0, 1000, 100))
    difference = (losses - golden.losses(torch.float64)).abs()
    assert difference[:2].max() < 1e-10  # it is not full yet
    assert difference[2:].min() > 1e-4


def test_codes_give_every_sample_weight_one_and_every_prototype_nearly_its_share():
    torch.manual_seed(0)
    scores = torch.randn(64, 7, dtype=torch.float64) / 10
    codes = sinkhorn(scores, 0.05, 3)
    torch.testing.assert_close(codes.sum(dim=1), torch.ones(64, dtype=torch.float64))
    shares = sinkhorn(scores, 0.05, 200).sum(dim=0)
    torch.testing.assert_close(shares, torch.full((7,), 64 / 7, dtype=torch.float64), rtol=1e-6, atol=0)
    off = [(q.sum(dim=0) - 64 / 7).abs().max() for q in (codes, (scores / 0.05).softmax(dim=1))]
    assert off[0] < off[1] / 2  # three rounds are most of the way from a softmax to equal shares


def test_codes_do_not_depend_on_the_order_of_samples_or_prototypes():
    torch.manual_seed(0)
    scores = torch.randn(10, 4, dtype=torch.float64) / 3
    rows, columns = torch.randperm(10), torch.randperm(4)
    codes = sinkhorn(scores, 0.05, 3)
    torch.testing.assert_close(sinkhorn(scores[rows][:, columns], 0.05, 3), codes[rows][:, columns])


def test_uniform_codes_and_scores_have_the_loss_ln_k():
    method = small()
    method.prototypes.weight.data[:] = method.prototypes.weight.data[0]  # every prototype scores the same
    method.before_forward(FIRST)
    assert method(crops()).loss.item() == pytest.approx(math.log(5), abs=1e-12)


def test_two_global_views_alone_are_enough():
    method = small()
    method.before_forward(FIRST)
    out = method(crops()[:2])
    out.loss.backward()
    assert len(out.projections) == 2
    assert torch.isfinite(out.loss)


def test_prototypes_have_unit_length_in_every_forward_and_move_only_after_their_time():
    method = small(freeze_prototypes_steps=3)
    method.prototypes.weight.data *= 7
    method.before_forward(FIRST)
    torch.testing.assert_close(
        method.prototypes.weight.detach().norm(dim=1), torch.ones(5, dtype=torch.float64)
    )
    for step, frozen in ((2, True), (3, False)):
        method(crops()).loss.backward()
        method.before_update(StepInfo(step, 100, 10))
        assert (method.prototypes.weight.grad is None) == frozen


def test_codes_get_no_gradient():
    method = small()
    method.before_forward(FIRST)
    z = torch.randn(8, 6, dtype=torch.float64, requires_grad=True)
    assert not method.codes(0, z, method.prototypes(z)).requires_grad


def test_queue_keeps_the_newest_embeddings_first_and_waits_for_its_epoch():
    method = small(queue=12, queue_from_epoch=2)
    for epoch, filled in ((1, 0), (2, 8), (3, 12)):
        method.before_forward(StepInfo(10 * epoch, 100, 10))
        out = method(crops())
        assert int(method.queue[0].any(dim=1).sum()) == filled
    torch.testing.assert_close(method.queue[1, :8], out.projections[1])
    torch.testing.assert_close(method.queue[:, :12].norm(dim=2), torch.ones(2, 12, dtype=torch.float64))


def test_a_resumed_queue_is_part_of_the_state():
    method = small(queue=8, queue_from_epoch=0)
    method.before_forward(FIRST)
    method(crops())
    other = small(queue=8, queue_from_epoch=0)
    other.load_state_dict(method.state_dict())
    other.before_forward(FIRST)
    torch.testing.assert_close(other(crops()).loss, method(crops()).loss, rtol=0, atol=0)


def test_bfloat16_networks_give_a_float32_loss_and_float32_codes():
    method = small().float()
    views = [x.float() for x in crops()]
    method.before_forward(FIRST)
    exact = method(views).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = method(views)
    assert out.loss.dtype == torch.float32
    assert out.projections[0].dtype == torch.float32
    assert out.loss.item() == pytest.approx(exact.item(), abs=0.02)


def run(runtime: Runtime, queue: int) -> Outcome:
    return two_steps(small(queue=queue, queue_from_epoch=0), crops(), runtime)


@pytest.mark.parametrize("queue", [0, 6])
def test_two_ranks_are_one(queue):
    for outcome in on_ranks(run, queue):
        assert_same_outcome(outcome, run(ALONE, queue))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"prototypes": 0}, "swav.prototypes"),
        ({"temperature": 0.0}, "swav.temperature"),
        ({"epsilon": 0.001}, "swav.epsilon"),
        ({"queue": 100}, "swav.queue 100 is shorter than optim.batch_size 256"),
    ],
)
def test_options_that_mean_nothing_are_refused(settings, words):
    with pytest.raises(UserError, match=words):
        SwAVConfig(**settings).check(256)
    SwAVConfig(queue=3840).check(256)


def test_published_sizes():
    backbone = TinyBackbone()
    backbone.dim = 2048
    with torch.device("meta"):
        method = SwAV(backbone, SwAVConfig())
    shapes = {name: tuple(p.shape) for name, p in method.named_parameters() if "backbone" not in name}
    assert shapes == {
        "projector.0.weight": (2048, 2048),
        "projector.0.bias": (2048,),
        "projector.1.weight": (2048,),
        "projector.1.bias": (2048,),
        "projector.3.weight": (128, 2048),
        "projector.3.bias": (128,),
        "prototypes.weight": (3000, 128),
    }
