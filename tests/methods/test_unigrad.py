"""UniGrad against the published code, its targets and its options.

The golden numbers are fundamentalvision/UniGrad's (commit ede8e68); no line of that code is here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support.golden_methods import (
    DTYPES,
    FIRST,
    FOLDER,
    FULL_BACKBONE,
    FULL_TARGET,
    STEPS,
    Golden,
    TinyBackbone,
    assert_close,
    assert_same_gradients,
    assert_trained_like,
    train,
)
from support.small_unigrad import small, views
from torch import Tensor

from siamtransfer.methods.base import StepInfo
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


def test_the_correlation_of_unit_vectors_has_trace_one():
    method = small()
    method(views())
    method([x.flip(0) * 2 for x in views()])
    assert method.correlation.matrix.trace().item() == pytest.approx(1, abs=1e-12)


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
        ({"negative": "asymmetric", "temperature": 0.1}, "unigrad.temperature changes .* to contrastive"),
        ({"negative": "contrastive", "epsilon": 0.2}, "unigrad.epsilon changes .* to asymmetric"),
    ],
)
def test_options_that_mean_nothing_are_refused(settings, words):
    with pytest.raises(UserError, match=words):
        UniGradConfig(**settings).check(64)
    UniGradConfig().check(64)
    UniGradConfig(negative="contrastive", temperature=0.1, target="stop-gradient", momentum=0.9).check(64)
    UniGradConfig(negative="asymmetric", plain_positive=True, epsilon=0.2).check(64)


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
