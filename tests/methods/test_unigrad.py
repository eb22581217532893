"""UniGrad against the published code, its families of gradients, their switches, and two ranks against one.

The golden numbers are fundamentalvision/UniGrad's (commit ede8e68); no line of that code is here.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from support.golden_methods import (
    ALONE,
    DTYPES,
    FIRST,
    FOLDER,
    FULL_BACKBONE,
    FULL_TARGET,
    STEPS,
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
from torch.nn import functional as F

from siamtransfer.distributed.runtime import Runtime
from siamtransfer.methods.base import StepInfo
from siamtransfer.methods.parts.unified_gradient import unigrad
from siamtransfer.methods.unigrad import UniGrad, UniGradConfig
from siamtransfer.utils.errors import UserError

PARTS = {"0": "0.0", "1": "0.1", "3": "1.0", "4": "1.1", "6": "2.0"}
FULL_PARTS = {"0": "linear1", "1": "bn1", "3": "linear2", "4": "bn2", "6": "linear3"}
SETS: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "unigrad.npz": (
        {
            "backbone.": "encoder.",
            "target_backbone.": "momentum_encoder.",
            **{f"projector.{ours}.": f"projector.{theirs}." for ours, theirs in PARTS.items()},
            **{
                f"target_projector.{ours}.": f"momentum_projector.{theirs}." for ours, theirs in PARTS.items()
            },
        },
        {"hidden": 32, "dim": 32, "momentum": 0.99},
    ),
    "full/unigrad.npz": (
        {
            **FULL_BACKBONE,
            **FULL_TARGET,
            **{f"projector.{ours}.": f"projector.{theirs}." for ours, theirs in FULL_PARTS.items()},
            **{
                f"target_projector.{ours}.": f"target.projector.{theirs}."
                for ours, theirs in FULL_PARTS.items()
            },
        },
        {"hidden": 24, "dim": 20, "momentum": 0.97},
    ),
}


def build(golden: Golden, dtype: torch.dtype, **settings: Any) -> UniGrad:
    method = UniGrad(TinyBackbone(), UniGradConfig(**settings)).to(dtype)
    golden.fill(method)
    return method


def small(**settings: Any) -> UniGrad:
    torch.manual_seed(0)
    return UniGrad(TinyBackbone(), UniGradConfig(**{"hidden": 10, "dim": 6, **settings})).double()


def views() -> list[Tensor]:
    return random_views(16, 16)


def units(seed: int, dim: int = 6) -> Tensor:
    z = torch.randn(8, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.normalize(z, dim=1)


def forward(method: UniGrad, dtype: torch.dtype, golden: Golden) -> dict[str, Tensor]:
    """The first step's embeddings by their golden names, and its loss and correlation; gradients are left on
    the parameters."""
    info = FIRST
    method.before_forward(info)
    seen: list[Tensor] = []
    embed = method.embed
    method.embed = lambda z: seen.append(embed(z)) or seen[-1]  # type: ignore[method-assign, func-returns-value]
    loss = method(golden.views(0, dtype)).loss
    loss.backward()
    return {**dict(zip(("z1", "z2", "z1m", "z2m"), seen, strict=True)), "loss": loss}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("file", SETS)
def test_embeddings_loss_correlation_and_every_gradient_equal_the_published_code(file, dtype):
    names, settings = SETS[file]
    golden = Golden(file, names)
    method = build(golden, dtype, **settings)
    ours = forward(method, dtype, golden)
    for name in ("z1", "z2", "z1m", "z2m"):
        assert_close(ours[name], golden.get("out", name, dtype), dtype, name)
    assert_close(ours["loss"], golden.losses(dtype)[0], dtype, "loss")
    if golden.full:
        assert_close(method.correlation.matrix, golden.get("out", "F_after", dtype), dtype, "F")
    assert_same_gradients(method, golden, dtype)


@pytest.mark.parametrize("file", SETS)
def test_five_training_steps_equal_the_published_code(file):
    names, settings = SETS[file]
    golden = Golden(file, names)
    for dtype in golden.trained_in():
        method = build(golden, dtype, **settings)
        assert_trained_like(method, golden, dtype, train(method, golden, dtype), without=("correlation.",))
        suffix = "_f64" if dtype == torch.float64 else ""
        last = f"F_after{suffix}/step{STEPS - 1}" if golden.full else "final_state/F"
        assert_close(method.correlation.matrix, golden.arrays[last], dtype, "F")


def test_the_golden_file_notices_a_target_that_moves_after_the_step():
    names, settings = SETS["full/unigrad.npz"]
    golden = Golden("full/unigrad.npz", names)
    method = build(golden, torch.float64, **settings)
    method.after_update = method.before_forward  # type: ignore[method-assign]
    method.before_forward = lambda info: None  # type: ignore[method-assign]
    losses = train(method, golden, torch.float64)
    assert (losses - golden.losses(torch.float64)).abs().max() > 1e-6


# our settings, the published name in the full set and in the first one
FAMILIES: dict[str, tuple[dict[str, Any], str, str]] = {
    "unigrad": ({}, "unigrad", "loss_unigrad"),
    "contrastive": ({"negative": "contrastive"}, "simclr", "loss_simclr_grad_mm"),
    "asymmetric": ({"negative": "asymmetric"}, "byol_directpred", "loss_byol_directpred_grad"),
    "barlow-twins": (
        {"negative": "barlow-twins", "plain_positive": True},
        "barlow",
        "loss_barlow_twins_grad_mm",
    ),
}


def family_gradients(method: UniGrad, embeddings: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """The surrogate loss and its gradient with respect to the unit embeddings of both views."""
    z1, z2, z1m, z2m = embeddings
    g1, g2 = method.gradients((z1, z2), (z1m, z2m), (z1m, z2m))
    loss = ((g1 * z1).sum(dim=1).mean() + (g2 * z2).sum(dim=1).mean()) / 2
    return loss, g1 / (2 * len(z1)), g2 / (2 * len(z2))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("given", [False, True], ids=["first-batch", "given-F"])
def test_gradients_of_every_family_equal_the_published_code(family, given, dtype):
    settings, published, _ = FAMILIES[family]
    arrays = {
        name: torch.from_numpy(np.asarray(array))
        for name, array in np.load(FOLDER / "full" / "unigrad_families.npz").items()
    }
    method = UniGrad(TinyBackbone(), UniGradConfig(hidden=8, dim=12, **settings)).to(dtype)
    remembers = family in ("unigrad", "asymmetric")
    if remembers:
        published += "_Fgiven" if given else "_Fnone"
        if given:
            method.correlation.matrix.copy_(arrays["input/F_given"])
    suffix = "_f64" if dtype == torch.float64 else ""
    for batch in ("batch0", "batch1"):
        embeddings = [arrays[f"input/{batch}/{name}"].to(dtype) for name in ("z1", "z2", "z1m", "z2m")]
        ours = family_gradients(method, embeddings)
        for one, name in zip(ours, ("loss", "dloss_dz1", "dloss_dz2"), strict=True):
            assert_close(one, arrays[f"{published}/{batch}/{name}{suffix}"], dtype, f"{batch} {name}")
        if remembers:
            theirs = arrays[f"{published}/{batch}/F_after{suffix}"]
            assert_close(method.correlation.matrix, theirs, dtype, "F")


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_of_the_first_set_equal_the_published_code(family):
    settings, _, published = FAMILIES[family]
    arrays = {
        name: torch.from_numpy(np.asarray(array))
        for name, array in np.load(FOLDER / "unigrad_families.npz").items()
    }
    method = UniGrad(TinyBackbone(), UniGradConfig(hidden=8, dim=24, **settings)).double()
    ours = family_gradients(method, [arrays[name].double() for name in ("z1", "z2", "z1m", "z2m")])
    for one, name in zip(ours, ("loss", "grad_z1", "grad_z2"), strict=True):
        assert_close(one, arrays[f"{published}/{name}"], torch.float64, name)


def test_the_loss_has_the_wanted_gradient_with_respect_to_embeddings():
    method = small()
    u1, u2 = units(1).requires_grad_(), units(2).requires_grad_()
    targets = units(3), units(4)
    g1, g2 = method.gradients((u1, u2), targets, targets)
    ((g1 * u1).sum(dim=1).mean() / 2 + (g2 * u2).sum(dim=1).mean() / 2).backward()
    f = torch.cat(targets).T @ torch.cat(targets) / 16
    torch.testing.assert_close(u1.grad, (-targets[1] + 100 * u1.detach() @ f) / 16)
    torch.testing.assert_close(u2.grad, (-targets[0] + 100 * u2.detach() @ f) / 16)


def test_the_correlation_of_unit_vectors_has_trace_one():
    method = small()
    method(views())
    method([x.flip(0) * 2 for x in views()])
    assert method.correlation.matrix.trace().item() == pytest.approx(1, abs=1e-12)


def simclr_with_constant_targets(z: list[Tensor]) -> Tensor:
    u = [F.normalize(x, dim=1) for x in z]
    loss = torch.zeros((), dtype=torch.float64)
    for view in (0, 1):
        bank = torch.cat([u[view], u[1 - view]]).detach()
        logits = (u[view] @ bank.T / 0.2).masked_fill(torch.eye(8, 16, dtype=torch.bool), -torch.inf)
        loss = loss + F.cross_entropy(logits, 8 + torch.arange(8)) / 2
    return loss


def barlow_twins_with_constant_targets(z: list[Tensor]) -> Tensor:
    loss = torch.zeros((), dtype=torch.float64)
    for view in (0, 1):
        squares = (z[view].T @ z[1 - view].detach() / 8 - torch.eye(6, dtype=torch.float64)) ** 2
        diagonal = squares.diagonal().sum()
        loss = loss + (diagonal + 0.0051 * (squares.sum() - diagonal)) / 2
    return loss


def vicreg_with_constant_targets(z: list[Tensor]) -> Tensor:
    loss = torch.zeros((), dtype=torch.float64)
    for view in (0, 1):
        off_diagonal = torch.cov(z[view].T) * (1 - torch.eye(6, dtype=torch.float64))
        hinge = (1 - (z[view].var(dim=0) + 1e-4).sqrt()).relu().mean() / 2
        invariance = F.mse_loss(z[view], z[1 - view].detach())
        loss = loss + (25 * invariance + 25 * hinge + off_diagonal.square().sum() / 6) / 2
    return loss * 6 / 25


def directpred_with_constant_targets(z: list[Tensor]) -> Tensor:
    """With ε = 0 the paper's form is exact."""
    u = [F.normalize(x, dim=1) for x in z]
    f = torch.cat(u).detach().T @ torch.cat(u).detach() / 16
    values, vectors = torch.linalg.eigh(f)
    root = (vectors * (values.clamp(min=0) / values.max()).sqrt()) @ vectors.T
    return -sum(F.cosine_similarity(u[v] @ root, u[1 - v].detach()).mean() / 2 for v in (0, 1))


LOSSES: dict[str, tuple[dict[str, Any], Callable[[list[Tensor]], Tensor]]] = {
    "contrastive": ({}, simclr_with_constant_targets),
    "asymmetric": ({"epsilon": 0.0}, directpred_with_constant_targets),
    "barlow-twins": ({"normalise": "batch", "balance": 0.0051}, barlow_twins_with_constant_targets),
    "vicreg": ({"normalise": "none"}, vicreg_with_constant_targets),
}


@pytest.mark.parametrize("negative", LOSSES)
def test_with_stop_gradient_a_family_trains_like_its_own_loss(negative):
    """Every parameter's gradient is that of the family's published loss with constant targets."""
    settings, loss = LOSSES[negative]
    method = small(negative=negative, target="stop-gradient", **settings)
    assert not any("target" in name for name in method.state_dict())
    method(views()).loss.backward()
    ours = {name: p.grad.clone() for name, p in method.named_parameters()}
    method.zero_grad()
    loss([method.projector(method.backbone(x)) for x in views()]).backward()
    for name, parameter in method.named_parameters():
        # The root of F's smallest eigenvalues is what DirectPred's clamp at 1e-4 touches.
        torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-7, atol=1e-9)


def parts(**settings: Any) -> tuple[Tensor, Tensor]:
    """View 1's gradient with constant unit vectors as online, target and negative embeddings."""
    online, targets = (units(1), units(2)), (units(3), units(4))
    negatives = targets if settings.get("target", "momentum") == "momentum" else online
    return small(**settings).gradients(online, targets, negatives)


def test_a_momentum_encoder_in_the_positive_part_alone():
    got, _ = parts(target="momentum-positive")
    u = torch.cat([units(1), units(2)])
    expected = unigrad(units(1), units(4), u.T @ u / 16, 100.0)
    torch.testing.assert_close(got, expected.total)


@pytest.mark.parametrize("negative", ["contrastive", "asymmetric", "barlow-twins", "vicreg"])
def test_every_family_takes_its_positive_part_from_the_momentum_encoder(negative):
    """What changes when only the targets of the positive part change is the positive part."""
    online, targets = (units(1), units(2)), (units(3), units(4))
    method = small(negative=negative, target="momentum-positive")
    form = method.form(online, online, [None, None])
    negative_part, pull = form(0, online[1], 1), form(0, targets[1], 1)
    expected = negative_part._replace(positive=pull.positive).total
    ours, _ = small(negative=negative, target="momentum-positive").gradients(online, targets, online)
    torch.testing.assert_close(ours, expected)
    assert (ours - negative_part.total).abs().max() > 1e-3


@pytest.mark.parametrize("negative", ["unigrad", "contrastive", "asymmetric", "barlow-twins", "vicreg"])
def test_balance_weighs_the_negative_part_alone(negative):
    online, targets = (units(1), units(2)), (units(3), units(4))
    switches = {"drop_bracket": True} if negative == "vicreg" else {}
    if negative in ("asymmetric", "barlow-twins"):
        switches = {"plain_positive": True}
    one, two, three = (
        small(negative=negative, balance=balance, **switches).gradients(online, targets, targets)[0]
        for balance in (1.0, 2.0, 3.0)
    )
    torch.testing.assert_close(three - two, two - one)
    assert (two - one).abs().max() > 1e-3
    pull = 2 * one - two  # at balance 0
    torch.testing.assert_close(F.normalize(pull, dim=1), -targets[1])


def test_the_plain_positive_part_replaces_predictor_and_matrix():
    for negative in ("asymmetric", "barlow-twins"):
        with_matrix, _ = parts(negative=negative)
        plain, _ = parts(negative=negative, plain_positive=True)
        assert (with_matrix - plain).abs().max() > 1e-2


def test_vicreg_without_bracket_is_unigrad_with_the_f_of_the_batch():
    got, _ = parts(negative="vicreg", balance=50.0, drop_bracket=True)
    u1 = units(1)
    torch.testing.assert_close(got, 2 * unigrad(u1, units(4), u1.T @ u1 / 8, 50.0).total)
    assert (got - parts(negative="vicreg", balance=50.0)[0]).abs().max() > 1e-2


def test_targets_move_before_the_forward_pass_with_a_rising_momentum():
    method = small(momentum=0.9)
    for parameter in method.parameters():
        parameter.data.fill_(1)
    for parameter in [*method.target_backbone.parameters(), *method.target_projector.parameters()]:
        parameter.data.zero_()
    method.before_forward(StepInfo(50, 100, 10))
    for parameter in [*method.target_backbone.parameters(), *method.target_projector.parameters()]:
        torch.testing.assert_close(parameter, torch.full_like(parameter, 0.05))
    method.after_update(StepInfo(50, 100, 10))
    torch.testing.assert_close(method.target_projector[6].bias, torch.full((6,), 0.05, dtype=torch.float64))


def test_bfloat16_networks_keep_loss_and_f_in_float32():
    method = small().float()
    pair = [x.float() for x in views()]
    exact = method(pair).loss
    method.correlation.matrix.zero_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = method(pair).loss
    assert (loss.dtype, method.correlation.matrix.dtype) == (torch.float32, torch.float32)
    assert method.correlation.matrix.trace().item() == pytest.approx(1, abs=1e-5)
    assert loss.item() == pytest.approx(exact.item(), rel=0.05)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"balance": 0.0}, "unigrad.balance"),
        ({"rho": 1.5}, "unigrad.rho"),
        ({"plain_positive": True}, "asymmetric or barlow-twins"),
        ({"negative": "barlow-twins", "drop_bracket": True}, "vicreg"),
    ],
)
def test_options_that_mean_nothing_are_refused(settings, words):
    with pytest.raises(UserError, match=words):
        UniGradConfig(**settings).check(64)
    UniGradConfig().check(64)


VARIANTS = list(
    itertools.product(
        ["unigrad", "contrastive", "asymmetric", "barlow-twins", "vicreg"],
        ["momentum", "stop-gradient", "momentum-positive"],
    )
)


def run_each(runtime: Runtime) -> list[Outcome]:
    return [
        two_steps(small(negative=negative, target=target), views(), runtime) for negative, target in VARIANTS
    ]


def test_two_ranks_are_one_in_every_variant():
    alone = run_each(ALONE)
    for outcomes in on_ranks(run_each):
        for variant, outcome, expected in zip(VARIANTS, outcomes, alone, strict=True):
            assert_same_outcome(outcome, expected, str(variant))


def test_published_sizes():
    backbone = TinyBackbone()
    backbone.dim = 2048
    with torch.device("meta"):
        method = UniGrad(backbone, UniGradConfig())
    shapes = {name: tuple(p.shape) for name, p in method.projector.named_parameters()}
    assert shapes == {
        "0.weight": (2048, 2048),
        "1.weight": (2048,),
        "1.bias": (2048,),
        "3.weight": (2048, 2048),
        "4.weight": (2048,),
        "4.bias": (2048,),
        "6.weight": (2048, 2048),
        "6.bias": (2048,),
    }
