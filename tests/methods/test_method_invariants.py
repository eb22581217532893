"""What follows from the definitions of SimCLR, BYOL, Barlow Twins and VICReg, and of momentum encoders:
values that can be had by hand, and changes that change nothing. MoCo and MoCo v3 are in test_moco.py."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from support import paths
from support.golden_methods import FIRST, TinyBackbone
from support.small_methods import BATCH, Constant, small, some_views, unit_rows
from torch import Tensor, nn

from siamtransfer.methods import METHODS, SimSiam, SimSiamConfig, StepInfo
from siamtransfer.methods.byol import BYOL, BYOLConfig
from siamtransfer.methods.parts.ema import momentum_copy, move, rising
from siamtransfer.methods.simclr import SimCLR
from siamtransfer.methods.vicreg import covariance, variance

SCHEDULES = json.loads((paths.GOLDEN / "schedules_full.json").read_text())["ema_momentum"]


# Momentum encoders.


@pytest.mark.parametrize("name", ["moco_v3", "dino", "unigrad", "solo_learn"])
def test_momentum_rises_as_in_published_code(name):
    golden = SCHEDULES[name]
    base = golden.get("base", golden.get("base_momentum"))
    steps = len(golden["values"])
    ours = [rising(base, StepInfo(step, steps, 7).done) for step in range(steps)]
    assert ours == pytest.approx(golden["values"], abs=1e-14)
    assert rising(base, 1) == 1


def test_an_average_moves_parameters_and_leaves_buffers():
    online, target = TinyBackbone(), TinyBackbone()
    online.b1.running_mean.fill_(5)
    with torch.no_grad():
        for parameter in target.parameters():
            parameter.zero_()
    buffers = {name: buffer.clone() for name, buffer in target.named_buffers()}
    move(target, online, 0.75)
    for (name, ours), theirs in zip(target.named_parameters(), online.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs / 4, msg=name)
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in target.named_buffers())
    assert not any(p.requires_grad for p in momentum_copy(online).parameters())


MOMENTUM = {"moco": "before_forward", "moco-v3": "before_forward", "byol": "after_update"}


@pytest.mark.parametrize("name", MOMENTUM)
@pytest.mark.parametrize(("momentum", "moves"), [(0.0, True), (1.0, False)])
def test_momentum_0_copies_the_online_network_and_1_never_moves(name, momentum, moves):
    method = small(name, momentum=momentum)
    with torch.no_grad():
        for parameter in [*method.backbone.parameters(), *method.projector.parameters()]:
            parameter.add_(1)
    before = {key: tensor.clone() for key, tensor in method.state_dict().items()}
    moved = []
    for info in ("before_forward", "before_update", "after_update"):
        getattr(method, info)(FIRST)
        now = {key: tensor.clone() for key, tensor in method.state_dict().items()}
        moved += [info] if any(not torch.equal(now[key], before[key]) for key in now) else []
        before = now
    assert moved == ([MOMENTUM[name]] if moves else [])
    state = method.state_dict()
    for part in ("backbone", "projector"):
        for key, _ in getattr(method, part).named_parameters():
            same = torch.equal(state[f"target_{part}.{key}"], state[f"{part}.{key}"])
            assert same == moves


@pytest.mark.parametrize("name", MOMENTUM)
def test_a_target_network_learns_its_own_statistics_and_no_gradient_reaches_it(name):
    method = small(name)
    before = method.target_backbone.b1.running_mean.clone()
    method(some_views()).loss.backward()
    assert not torch.equal(method.target_backbone.b1.running_mean, before)
    assert all(p.grad is None for key, p in method.named_parameters() if key.startswith("target_"))


# SimCLR.


def simclr_of(z1: Tensor, z2: Tensor, temperature: float = 0.1) -> float:
    method: SimCLR = small("simclr", temperature=temperature)  # type: ignore[assignment]
    method.projector = Constant(z1, z2)
    return method(some_views()).loss.item()


def test_simclr_of_equal_projections_is_ln_of_what_there_is_to_choose_from():
    z = unit_rows(1, 8).expand(BATCH, 8)
    assert simclr_of(z, z) == pytest.approx(math.log(2 * BATCH - 1), abs=1e-12)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_simclr_is_the_papers_double_sum(temperature):
    z1, z2 = unit_rows(BATCH, 8, 1) * 3, unit_rows(BATCH, 8, 2)  # lengths do not matter
    z = np.concatenate([z1.numpy() / 3, z2.numpy()])
    losses = []
    for i in range(2 * BATCH):
        similarity = np.exp(z @ z[i] / temperature)
        losses.append(-np.log(similarity[(i + BATCH) % (2 * BATCH)] / (similarity.sum() - similarity[i])))
    assert simclr_of(z1, z2, temperature) == pytest.approx(np.mean(losses), rel=1e-12)


def test_simclr_has_a_gradient_in_both_views_and_negatives():
    method: SimCLR = small("simclr")  # type: ignore[assignment]
    anchors, partners = (unit_rows(4, 8, seed).requires_grad_() for seed in (1, 2))
    method.contrast(anchors[:1], partners[:1]).backward()
    assert anchors.grad is not None
    assert partners.grad is not None
    method.contrast(anchors, partners).backward()
    assert all(row.any() for row in partners.grad)


@pytest.mark.parametrize(
    ("norm", "affine", "shift"), [("none", 0, False), ("scale", 1, False), ("affine", 1, True)]
)
def test_batch_norm_after_simclrs_projector(norm, affine, shift):
    projector = small("simclr", output_norm=norm).projector
    assert sum(isinstance(module, nn.BatchNorm1d) for module in projector) == 1 + affine
    assert getattr(projector[-1], "bias", None) is None or projector[-1].bias.requires_grad == shift


# BYOL.


def test_byol_whose_target_is_itself_is_four_times_simsiam_plus_four():
    method: BYOL = small("byol")  # type: ignore[assignment]
    twin = SimSiam(TinyBackbone(), SimSiamConfig(dim=8)).double()
    twin.backbone, twin.projector, twin.predictor = method.backbone, method.projector, method.predictor
    views = some_views()
    ours, theirs = method(views).loss, twin(views).loss
    torch.testing.assert_close(ours, 4 + 4 * theirs)
    method.zero_grad()
    ours.backward()
    gradient = method.backbone.c1.weight.grad.clone()
    method.zero_grad()
    theirs.backward()
    torch.testing.assert_close(gradient, 4 * method.backbone.c1.weight.grad)


def test_byols_projector_may_have_three_layers():
    """As in arXiv 2112.05141: hidden layers of one width with batch norm, none after the output."""
    method = BYOL(TinyBackbone(), BYOLConfig(hidden=10, dim=6, projector_layers=3))
    kinds = ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear"]
    assert [type(layer).__name__ for layer in method.projector] == kinds
    assert [layer.weight.shape for layer in method.projector[::3]] == [(10, 16), (10, 10), (6, 10)]
    assert method.target_projector.state_dict().keys() == method.projector.state_dict().keys()


def test_byol_lies_between_agreement_and_opposition():
    method = small("byol")
    z = unit_rows(BATCH, 8)
    for target, expected in ((z, 0.0), (-3 * z, 8.0), (z.roll(1, 1), None)):
        method.predictor, method.target_projector = Constant(z), Constant(target)
        loss = method(some_views()).loss.item()
        assert 0 <= loss <= 8
        assert expected is None or loss == pytest.approx(expected, abs=1e-12)


# Barlow Twins and VICReg.


def barlow_of(z1: Tensor, z2: Tensor) -> float:
    torch.manual_seed(0)
    entry = METHODS["barlow-twins"]
    method = entry(TinyBackbone(), entry.Config(dim=z1.shape[1], hidden=4)).double()
    method.projector, method.norm.eps = Constant(z1, z2), 1e-15
    return method(some_views()).loss.item()


def white(n: int, d: int) -> Tensor:
    """Rows whose channels are not correlated; each has its own mean and variance."""
    z = unit_rows(n, d)
    q, _ = torch.linalg.qr(z - z.mean(dim=0))
    return q * torch.arange(1, d + 1) + torch.arange(d)


def test_barlow_twins_is_zero_for_uncorrelated_channels_and_counts_a_doubled_one_twice():
    z = white(BATCH, 6)
    assert barlow_of(z, z) == pytest.approx(0, abs=1e-12)
    doubled = torch.cat([z, z[:, :1]], dim=1)
    assert barlow_of(doubled, doubled) == pytest.approx(2 * 0.0051, rel=1e-9)
    opposed = torch.cat([z[:, :1], -z[:, 1:]], dim=1)
    assert barlow_of(z, opposed) == pytest.approx(5 * 4, rel=1e-9)


def test_barlow_twins_is_the_papers_sum_over_correlations():
    z1, z2 = unit_rows(BATCH, 5, 1), unit_rows(BATCH, 5, 2)
    c = np.corrcoef(z1.T.numpy(), z2.T.numpy())[:5, 5:]
    expected = ((np.diag(c) - 1) ** 2).sum() + 0.0051 * (c**2 - np.diag(np.diag(c) ** 2)).sum()
    assert barlow_of(z1, z2) == pytest.approx(expected, rel=1e-10)


def vicreg_of(z1: Tensor, z2: Tensor) -> float:
    method = small("vicreg")
    method.projector = Constant(z1, z2)
    return method(some_views()).loss.item()


def test_vicreg_of_equal_embeddings_is_its_variance_term_alone():
    z = torch.ones(BATCH, 5, dtype=torch.float64)
    assert vicreg_of(z, z) == pytest.approx(25 * (1 - math.sqrt(1e-4)), rel=1e-12)  # 24.75


def test_vicreg_is_the_papers_three_terms():
    z1, z2 = unit_rows(BATCH, 5, 1) * 2, unit_rows(BATCH, 5, 2) * 2
    invariance = ((z1 - z2) ** 2).mean().item()
    expected = 25 * invariance
    for z in (z1.numpy(), z2.numpy()):
        cov = np.cov(z.T)
        expected += 25 / 2 * np.maximum(0, 1 - np.sqrt(np.diag(cov) + 1e-4)).mean()
        expected += (cov**2 - np.diag(np.diag(cov) ** 2)).sum() / 5
    assert vicreg_of(z1, z2) == pytest.approx(expected, rel=1e-10)
    wide = white(BATCH, 5) * 40
    assert variance(wide).item() == 0
    assert covariance(wide).item() == pytest.approx(0, abs=1e-20)


# Sizes.

PUBLISHED: dict[str, dict[str, tuple[int, ...]]] = {
    "simclr": {"projector.0.weight": (2048, 2048), "projector.3.weight": (128, 2048)},
    "moco": {
        "projector.0.weight": (2048, 2048), "projector.2.weight": (128, 2048), "projector.2.bias": (128,),
        "queue": (65536, 128),
    },
    "moco-v3": {
        "projector.0.weight": (4096, 2048), "projector.3.weight": (256, 4096),
        "predictor.0.weight": (4096, 256), "predictor.3.weight": (256, 4096),
        "projector.4.running_var": (256,),
    },
    "byol": {
        "projector.0.weight": (4096, 2048), "projector.3.weight": (256, 4096), "projector.3.bias": (256,),
        "predictor.0.weight": (4096, 256), "predictor.3.weight": (256, 4096),
    },
    "barlow-twins": {
        "projector.0.weight": (8192, 2048), "projector.3.weight": (8192, 8192),
        "projector.6.weight": (8192, 8192), "norm.running_var": (8192,),
    },
    "vicreg": {
        "projector.0.bias": (8192,), "projector.3.weight": (8192, 8192), "projector.6.weight": (8192, 8192),
    },
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    backbone = TinyBackbone()
    backbone.dim = 2048
    with torch.device("meta"):
        method = METHODS[name](backbone, METHODS[name].Config())
    shapes = {key: tuple(tensor.shape) for key, tensor in method.state_dict().items()}
    assert {key: shapes[key] for key in PUBLISHED[name]} == PUBLISHED[name]
    biases = {
        key for key in shapes if key.endswith("bias") and shapes[key.replace("bias", "weight")] != shapes[key]
    }
    heads = {key for key in biases if key.startswith(("projector", "predictor"))}
    assert heads == {
        "simclr": set(), "moco-v3": set(), "barlow-twins": set(),
        "moco": {"projector.0.bias", "projector.2.bias"},
        "byol": {f"{head}.{layer}.bias" for head in ("projector", "predictor") for layer in (0, 3)},
        "vicreg": {"projector.0.bias", "projector.3.bias"},
    }[name]  # fmt: skip
