"""Each method against code that others published, with the frame around it: losses, gradients, five steps.

The golden numbers were computed at small size by facebookresearch/moco (132aea9), moco-v3 (c349e6e),
barlowtwins (8e8d284) and vicreg (4e12602), and, where the authors' code is not in PyTorch, by lightly
(SimCLR, BYOL) and solo-learn (BYOL); no line of theirs is here. SimSiam, SwAV, DINO, DirectPred and UniGrad
have files of their own. Then what holds for every method: two ranks are one, half precision is for networks
only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from support.golden_methods import (
    DTYPES,
    FIRST,
    FULL_BACKBONE,
    FULL_TARGET,
    STEPS,
    Golden,
    TinyBackbone,
    assert_close,
    assert_same_gradients,
    assert_trained_like,
)
from support.small_methods import BATCH, SMALL, small, some_views
from support.small_runs import on_ranks
from torch import Tensor

from siamtransfer.distributed.runtime import Runtime
from siamtransfer.methods import METHODS, Method, StepInfo, section_of
from siamtransfer.optim.config import OptimConfig
from siamtransfer.optim.optimizers import build_optimizer
from siamtransfer.pretraining.collapse import CollapseWatch
from siamtransfer.training.guard import StepContext
from siamtransfer.training.step import Updater, train_step

ALONE = Runtime(torch.device("cpu"), torch.float32)
CONTEXT = StepContext(step=0, lr=0.0, indices=torch.arange(0))


def layers(head: str, published: str, parts: Iterable[str]) -> dict[str, str]:
    """Our names of a head's layers, whose `parts` are in the order of its modules, to the published ones."""
    return {f"{head}.{number}.": f"{published}.{part}." for number, part in enumerate(parts)}


WITH_NORM = ("linear1", "bn1", "relu", "linear2", "bn2", "relu", "linear3")
FULL_HEADS = {**FULL_BACKBONE, **layers("projector", "projector", WITH_NORM)}
FULL_PAIR = {
    **FULL_HEADS,
    **FULL_TARGET,
    **layers("predictor", "predictor", WITH_NORM),
    **layers("target_projector", "target.projector", WITH_NORM),
}
QUEUE = {"queue_start": "queue_ptr", "queue": "queue"}
FULL_QUEUE = {"queue_start": "buffer:queue_ptr", "queue": "buffer:queue"}
MOCO = {"backbone.": "encoder_q.", "target_backbone.": "encoder_k.", **QUEUE}
FULL_MOCO = {**FULL_BACKBONE, **FULL_TARGET, **FULL_QUEUE}


@dataclass
class Case:
    """A golden file: of which method, under which names, with which options, trained at which rate."""

    method: str
    names: dict[str, str]
    options: dict[str, Any]
    rate: float = 0.05
    outputs: tuple[str, str] | None = None
    change: dict[str, Any] = field(default_factory=dict)  # of the options, that the losses must show


CASES = {
    "simclr": Case(
        "simclr", {"backbone.": "f.", "projector.": "g."}, {"dim": 16, "output_norm": "none"},
        outputs=("z1", "z2"), change={"temperature": 0.11},
    ),
    "full/simclr": Case(
        "simclr", FULL_HEADS, {"hidden": 24, "dim": 12, "output_norm": "affine"},
        outputs=("z1", "z2"), change={"output_norm": "scale"},
    ),
    "moco_v1": Case(
        "moco", {**MOCO, "projector.0.": "encoder_q.fc.", "target_projector.0.": "encoder_k.fc."},
        {"projector_layers": 1, "dim": 16, "queue": 64, "temperature": 0.07, "momentum": 0.99},
        change={"temperature": 0.08},
    ),
    "full/moco_v1": Case(
        "moco",
        {
            **FULL_MOCO, "projector.0.": "projector.linear1.",
            "target_projector.0.": "target.projector.linear1.",
        },
        {"projector_layers": 1, "dim": 8, "queue": 64, "temperature": 0.07, "momentum": 0.97},
        outputs=("q", "k"), change={"momentum": 0.96},
    ),
    "moco_v2": Case(
        "moco", {**MOCO, "projector.": "encoder_q.fc.", "target_projector.": "encoder_k.fc."},
        {"dim": 16, "queue": 64, "momentum": 0.99}, change={"queue": 32},
    ),
    "full/moco_v2": Case(
        "moco",
        {
            **FULL_MOCO,
            **layers("projector", "projector", ("linear1", "relu", "linear2")),
            **layers("target_projector", "target.projector", ("linear1", "relu", "linear2")),
        },
        {"dim": 8, "queue": 64, "momentum": 0.97}, outputs=("q", "k"), change={"momentum": 0.98},
    ),
    "moco_v3": Case(
        "moco-v3",
        {
            "backbone.": "base_encoder.", "projector.": "base_encoder.fc.",
            "target_backbone.": "momentum_encoder.", "target_projector.": "momentum_encoder.fc.",
        },
        {"dim": 16, "hidden": 24, "temperature": 0.2}, change={"momentum": 0.98},
    ),
    "full/moco_v3": Case(
        "moco-v3", FULL_PAIR, {"dim": 12, "hidden": 24, "momentum": 0.97},
        outputs=("z1", "z2"), change={"temperature": 0.9},
    ),
    "byol": Case(
        "byol",
        {
            "backbone.": "f.", "projector.": "g.layers.", "predictor.": "h.layers.",
            "target_backbone.": "fm.", "target_projector.": "gm.layers.",
        },
        {"dim": 16, "hidden": 32, "hidden_bias": False, "momentum": 0.99}, change={"momentum": 0.98},
    ),
    "full/byol": Case(
        "byol", FULL_PAIR, {"dim": 12, "hidden": 32, "momentum": 0.97},
        outputs=("z1", "z2"), change={"momentum": 0.96},
    ),
    "barlow_twins": Case(
        "barlow-twins", {"norm.": "bn."}, {"dim": 32, "hidden": 32}, rate=0.005, change={"redundancy": 0.005},
    ),
    "full/barlow_twins": Case(
        "barlow-twins", {**FULL_HEADS, "norm.": "embedding_bn."}, {"dim": 32, "hidden": 32},
        outputs=("z1", "z2"), change={"redundancy": 0.006},
    ),
    "vicreg": Case("vicreg", {}, {"dim": 32, "hidden": 32}, rate=0.005, change={"covariance": 1.1}),
    "full/vicreg": Case(
        "vicreg", FULL_HEADS, {"dim": 32, "hidden": 32}, outputs=("z1", "z2"), change={"variance": 24.0},
    ),
}  # fmt: skip


def load(name: str) -> tuple[Golden, Case]:
    """A golden file, with a queue's keys as rows, and its case."""
    golden = Golden(f"{name}.npz", CASES[name].names)
    for key, array in golden.arrays.items():
        if key.endswith("queue"):
            golden.arrays[key] = array.T
    return golden, CASES[name]


def build(golden: Golden, case: Case, dtype: torch.dtype, **changes: Any) -> Method:
    entry = METHODS[case.method]
    method = entry(TinyBackbone(), entry.Config(**{**case.options, **changes})).to(dtype)
    golden.fill(method)
    return method


def train(method: Method, golden: Golden, case: Case, dtype: torch.dtype) -> Tensor:
    """The losses of five steps by the frame itself; schedules of the method stay where they begin."""
    config = OptimConfig(lr=case.rate, batch_size=256)
    optimizer, scaler, losses = build_optimizer(config, method.groups()), ALONE.scaler(), []
    for step in range(STEPS):
        info = StepInfo(step, steps=10**12, steps_per_epoch=100)
        views = golden.views(step, dtype)
        _, report = train_step(Updater(method, optimizer, scaler, ALONE), views, CONTEXT, info)
        losses.append(report.loss)
    return torch.tensor(losses, dtype=torch.float64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_outputs_loss_and_every_gradient_equal_published_code(name, dtype):
    golden, case = load(name)
    method = build(golden, case, dtype)
    method.before_forward(StepInfo(0, 10**12, 100))
    out = method(golden.views(0, dtype))
    assert out.loss.dtype == dtype
    for z, output in zip(out.projections, case.outputs or (), strict=bool(case.outputs)):
        theirs = golden.get("out", output, dtype)
        if case.method == "simclr":
            theirs = theirs / theirs.norm(dim=1, keepdim=True)
        assert_close(z, theirs, dtype, output)
        assert not z.requires_grad
    assert_close(out.loss, golden.losses(dtype)[0], dtype, "loss")
    out.loss.backward()
    assert_same_gradients(method, golden, dtype)


@pytest.mark.parametrize("name", CASES)
def test_five_training_steps_equal_published_code(name):
    golden, case = load(name)
    for dtype in golden.trained_in():
        method = build(golden, case, dtype)
        losses = train(method, golden, case, dtype)
        assert_trained_like(method, golden, dtype, losses)


@pytest.mark.parametrize("name", CASES)
def test_the_golden_files_notice_another_setting(name):
    golden, case = load(name)
    if "queue" in case.change:
        golden.arrays["init/queue"] = golden.arrays["init/queue"][: case.change["queue"]]
    losses = train(build(golden, case, torch.float64, **case.change), golden, case, torch.float64)
    assert (losses - golden.losses(torch.float64)).abs().max() > 1e-6


@pytest.mark.parametrize("name", ["full/moco_v1", "full/moco_v2", "full/moco_v3", "full/byol"])
def test_the_golden_files_notice_a_target_that_moves_at_the_other_moment(name):
    golden, case = load(name)
    method = build(golden, case, torch.float64)
    kind = type(method)
    swapped = type("Swapped", (kind,), {
        "before_forward": kind.after_update, "after_update": kind.before_forward,
    })  # fmt: skip
    method.__class__ = swapped
    losses = train(method, golden, case, torch.float64)
    assert (losses - golden.losses(torch.float64)).abs().max() > 1e-5


# What holds for every method.


def test_every_method_has_a_name_options_and_is_tried_here():
    assert list(METHODS) == list(SMALL)
    for name, cls in METHODS.items():
        cls.Config().check(batch=256)
        assert METHODS.name_of(cls.Config) == name


@pytest.mark.parametrize("name", METHODS)
def test_every_parameter_is_frozen_or_in_one_group_with_a_gradient(name):
    method = small(name)
    method.before_forward(FIRST)
    method(some_views()).loss.backward()
    grouped = [p for group in method.groups() for p in group.parameters]
    assert len({id(p) for p in grouped}) == len(grouped)
    assert {id(p) for p in grouped} == {id(p) for p in method.parameters() if p.requires_grad}
    assert all((p.grad is not None) == p.requires_grad for p in method.parameters())
    frozen = {key for key, p in method.named_parameters() if key.startswith("target_")}
    assert all(not method.get_parameter(key).requires_grad for key in frozen)


def trained(runtime: Runtime, name: str, steps: int, synchronise: bool = True, **changes: Any) -> Any:
    """Losses of some steps on this rank's rows, the last gradients, and the state."""
    method, last = small(name, **changes), {}
    model = runtime.distribute(method, synchronise_batch_norm=synchronise)
    before_update = method.before_update

    def note_gradients(info: StepInfo) -> None:
        last.update({key: p.grad.clone() for key, p in method.named_parameters() if p.grad is not None})
        before_update(info)

    method.before_update = note_gradients  # type: ignore[method-assign]
    optimizer = build_optimizer(OptimConfig(lr=0.05, batch_size=256), method.groups())
    losses = []
    for step in range(steps):
        local = [view.chunk(runtime.world_size)[runtime.rank] for view in some_views(step)]
        info = StepInfo(step, 100, 10)
        torch.manual_seed(10 * step + runtime.rank)
        updater = Updater(model, optimizer, runtime.scaler(), runtime)
        _, report = train_step(updater, local, CONTEXT, info)
        losses.append(report.loss)
    return losses, last, method.state_dict()


@pytest.mark.parametrize("name", METHODS)
def test_two_ranks_are_one(name):
    losses, gradients, state = trained(ALONE, name, 3)
    for rank_losses, rank_gradients, rank_state in on_ranks(trained, name, 3):
        assert rank_losses == pytest.approx(losses, rel=1e-10)
        assert rank_gradients.keys() == gradients.keys()
        for ours, expected in ((rank_gradients, gradients), (rank_state, state)):
            for key, tensor in expected.items():
                torch.testing.assert_close(
                    ours[key], tensor, rtol=1e-7, atol=1e-10, msg=lambda text, key=key: f"{key}: {text}"
                )


@pytest.mark.parametrize("name", METHODS)
def test_networks_in_half_precision_give_a_float32_loss_near_the_exact_one(name):
    views = [view.float() for view in some_views()]
    losses = []
    for enabled in (False, True):
        method = small(name).float()
        method.before_forward(FIRST)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            out = method(views)
        assert out.loss.dtype == torch.float32
        out.loss.backward()
        losses.append(out.loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=0.1, abs=0.05)
    assert losses[1] != losses[0]


@pytest.mark.parametrize("name", METHODS)
def test_a_batch_in_another_order_has_the_same_loss(name):
    order = torch.randperm(BATCH)
    losses = []
    for views in (some_views(), [view[order] for view in some_views()]):
        method = small(name)
        method.before_forward(FIRST)
        losses.append(method(views).loss.item())
    assert math.isfinite(losses[0])
    assert losses[1] == pytest.approx(losses[0], rel=1e-9)


@pytest.mark.parametrize("name", list(METHODS))
def test_embeddings_may_share_a_direction_where_no_norm_centres_them(name):
    """What runs on Fashion Scenes showed (the suites methods and collapse): those that learn, and those whose
    codes or centres say nothing."""
    learning = {"health/std": 0.21, "health/effective_rank": 2.4, "health/rank_share": 0.21}
    collapsed = {"health/std": 0.07, "health/effective_rank": 2.0, "health/rank_share": 0.17}
    uniform = {"health/std": 0.09, "health/effective_rank": 5.0, "health/rank_share": 0.39}
    options = METHODS[name].Config
    watch = CollapseWatch(options.least_std, options.least_rank_fraction, patience=1)
    assert (watch.check(7, learning) is None) == (name in {"moco", "swav", "dino", "unigrad"})
    watch.armed = True
    assert watch.check(8, collapsed) is not None
    watch.armed = True
    assert watch.check(9, uniform) is not None


@pytest.mark.parametrize("name", ["simsiam", "moco", "byol", "swav"])
def test_an_alarm_names_what_the_method_itself_may_be_to_blame_for(name):
    watch, options = CollapseWatch(patience=1), METHODS[name].Config
    health = {"health/std": 0.0, "health/effective_rank": 1.0, "health/rank_share": 0.0}
    text = watch.check(7, health, options.collapse_causes)
    assert text is not None
    assert options.collapse_causes
    assert all(cause in text for cause in (*options.collapse_causes, "optim.lr", "views.recipe"))
    assert f"{section_of(name)}." in text
    assert "simsiam." not in text or name == "simsiam"
