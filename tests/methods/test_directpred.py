"""DirectPred against the published code, its rules and their invariants, and two ranks against one.

The golden numbers are facebookresearch/luckmatters's (commit 625b5f7); no line of that code is here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import fractional_matrix_power
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
from siamtransfer.methods.directpred import DirectPred, DirectPredConfig, predictor_of
from siamtransfer.methods.parts.correlation import Correlation
from siamtransfer.utils.errors import UserError

NAMES = {
    **FULL_BACKBONE,
    **FULL_TARGET,
    **{
        f"{ours}.{part}": f"{theirs}.{published}"
        for ours, theirs in (("projector", "projector"), ("target_projector", "target.projector"))
        for part, published in {"0.": "linear1.", "1.": "bn1.", "3.": "linear2."}.items()
    },
    "predictor.": "predictor.linear1.",
}
GOLDEN_SETTINGS = {
    "hidden": 24, "dim": 12, "affine": False, "rho": 0.3, "epsilon": 0.1, "momentum": 0.97,
    "momentum_schedule": "constant",
}  # fmt: skip


def build(golden: Golden, dtype: torch.dtype, **settings: Any) -> DirectPred:
    method = DirectPred(TinyBackbone(), DirectPredConfig(**{**GOLDEN_SETTINGS, **settings})).to(dtype)
    golden.fill(method)
    return method


def small(**settings: Any) -> DirectPred:
    torch.manual_seed(0)
    return DirectPred(TinyBackbone(), DirectPredConfig(**{"hidden": 10, "dim": 5, **settings})).double()


def views() -> list[Tensor]:
    return random_views(16, 16)


def correlation(dim: int = 6, rows: int = 40) -> Tensor:
    z = torch.randn(rows, dim, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return z.T @ z / rows


@pytest.mark.parametrize("dtype", DTYPES)
def test_outputs_loss_correlation_and_every_gradient_equal_the_published_code(dtype):
    golden = Golden("full/directpred.npz", NAMES)
    method = build(golden, dtype)
    method.before_forward(FIRST)
    out = method(golden.views(0, dtype))
    for z, name in zip(out.projections, ("z1", "z2"), strict=True):
        assert_close(z, golden.get("out", name, dtype), dtype, name)
        assert_close(method.predictor(z), golden.get("out", name.replace("z", "p"), dtype), dtype, name)
    assert_close(method.correlation.matrix, golden.get("out", "F_after", dtype), dtype, "F")
    assert_close(out.loss, golden.losses(dtype)[0], dtype, "loss")
    out.loss.backward()
    assert_same_gradients(method, golden, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_five_training_steps_equal_the_published_code(dtype):
    golden = Golden("full/directpred.npz", NAMES)
    method = build(golden, dtype)
    losses = train(method, golden, dtype)
    assert_trained_like(method, golden, dtype, losses, without=("correlation.",))
    suffix = "_f64" if dtype == torch.float64 else ""
    last = golden.arrays[f"F_after{suffix}/step{STEPS - 1}"]
    assert_close(method.correlation.matrix, last, dtype, "F")


@pytest.mark.parametrize(
    "change", [{"rho": 0.4}, {"epsilon": 0.11}, {"freq": 2}, {"momentum": 0.96}, {"rule": "directcopy"}]
)
def test_the_golden_file_notices_another_setting(change):
    golden = Golden("full/directpred.npz", NAMES)
    losses = train(build(golden, torch.float64, **change), golden, torch.float64)
    assert (losses - golden.losses(torch.float64)).abs().max() > 1e-6


RULES: dict[str, dict[str, Any]] = {
    "boost_eps0": {"epsilon": 0.0},
    "boost_eps0.01": {"epsilon": 0.01},
    "boost_eps0.1": {"epsilon": 0.1},
    "boost_eps0.3": {"epsilon": 0.3},
    "boost_eps-0.1": {"epsilon": -0.1},
    "boost_inside_eps0.05": {"epsilon": 0.05, "epsilon_inside": True},
    "boost_inside_eps-0.05": {"epsilon": -0.05, "epsilon_inside": True},
    "boost_convert1_eps0.1": {"rule": "directset", "alpha": 1.0, "epsilon": 0.1},
    "boost_convert4_eps0.1": {"rule": "directset", "alpha": 0.25, "epsilon": 0.1},
    "direct_convert1_eps0.3": {"rule": "directcopy", "epsilon": 0.3},
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("matrix", ["F_given", "F_rank_deficient", "F_slightly_indefinite"])
@pytest.mark.parametrize("rule", RULES)
def test_predictors_equal_the_published_code(rule, matrix, dtype):
    arrays = np.load(FOLDER / "full" / "directpred_eig.npz")
    given = torch.from_numpy(arrays[f"input/{matrix}"]).to(dtype)
    ours = predictor_of(given, DirectPredConfig(**RULES[rule]))
    theirs = torch.from_numpy(arrays[f"W/{rule}/{matrix}{'_f64' if dtype == torch.float64 else ''}"])
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-10}[dtype]
    if matrix == "F_rank_deficient":
        # Its eigenvalues are zero up to rounding only, and a root makes that larger.
        tolerance = {torch.float32: 0.05, torch.float64: 1e-6}[dtype]
    torch.testing.assert_close(ours, theirs.to(dtype), rtol=0, atol=tolerance)


def test_predictors_of_the_first_set_equal_the_published_code():
    arrays = {name: torch.from_numpy(a) for name, a in np.load(FOLDER / "directpred.npz").items()}
    for name, settings in {
        "W_directpred_eps0": {"epsilon": 0.0},
        "W_directpred_eps01": {"epsilon": 0.1},
        "W_directpred_eps_inside": {"epsilon": 0.1, "epsilon_inside": True},
        "W_directcopy": {"rule": "directcopy", "epsilon": 0.3},
    }.items():
        ours = predictor_of(arrays["F"], DirectPredConfig(**settings))
        # The published DirectCopy adds 0.3 as float32 has it.
        tolerance = 2e-8 if "rule" in settings else 1e-10
        torch.testing.assert_close(ours, arrays[name], rtol=0, atol=tolerance)


@pytest.mark.parametrize("rho", [0.3, 0.8])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_correlation_moves_like_the_published_one(rho, dtype):
    arrays = np.load(FOLDER / "full" / "directpred_eig.npz")
    ours, suffix = Correlation(12, rho).to(dtype), "_f64" if dtype == torch.float64 else ""
    for update in range(2):
        pair = [torch.from_numpy(arrays[f"input/update{update}/view{v}"]).to(dtype) for v in (1, 2)]
        ours(torch.cat(pair))
        theirs = torch.from_numpy(arrays[f"updates/rho{rho}/update{update}/F{suffix}"])
        assert_close(ours.matrix, theirs, dtype, "F")
        for epsilon in ("0.1", "0.01"):
            predictor = predictor_of(ours.matrix, DirectPredConfig(epsilon=float(epsilon)))
            name = f"updates/rho{rho}/update{update}/W_eps{epsilon}{suffix}"
            assert_close(predictor, torch.from_numpy(arrays[name]), dtype, name)


@pytest.mark.parametrize("settings", [{}, {"rule": "directset", "alpha": 0.7}, {"rule": "directcopy"}])
def test_predictors_are_symmetric_and_positive_and_share_the_eigenvectors_of_f(settings):
    given = correlation()
    ours = predictor_of(given, DirectPredConfig(**settings))
    torch.testing.assert_close(ours, ours.T, rtol=0, atol=1e-12)
    assert torch.linalg.eigvalsh(ours).min() > 0
    torch.testing.assert_close(ours @ given, given @ ours, rtol=0, atol=1e-12)
    scaled = predictor_of(3 * torch.eye(4, dtype=torch.float64), DirectPredConfig(**settings))
    torch.testing.assert_close(scaled, scaled[0, 0] * torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("power", [0.5, 0.7, 1.0])
def test_directset_is_a_power_of_f_at_norm_one(power):
    given = correlation()
    expected = fractional_matrix_power((given / torch.linalg.matrix_norm(given, 2)).numpy(), power)
    expected = expected + 0.3 * np.eye(6)
    ours = predictor_of(given, DirectPredConfig(rule="directset", alpha=power, epsilon=0.3))
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-10)
    if power == 0.5:
        same = predictor_of(given, DirectPredConfig(epsilon=0.3))
        torch.testing.assert_close(same, ours, rtol=0, atol=0)


def test_the_predictor_is_computed_every_freq_steps_and_learns_in_between():
    method = small(freq=3)
    for step in range(5):
        before = method.predictor.weight.detach().clone()
        method(views()).loss.backward()
        assert method.predictor.weight.grad is not None
        method.after_update(StepInfo(step, 100, 10))
        computed = predictor_of(method.correlation.matrix, method.config)
        if step % 3 == 0:
            torch.testing.assert_close(method.predictor.weight.detach(), computed, rtol=0, atol=0)
        else:
            torch.testing.assert_close(method.predictor.weight.detach(), before, rtol=0, atol=0)


def test_the_loss_is_minus_two_cosines_and_passes_no_gradient_to_targets():
    method = small()
    x1, x2 = views()
    out = method([x1, x2])
    z1, z2 = out.projections
    t1, t2 = (method.target_projector(method.target_backbone(x)) for x in (x1, x2))
    directions = [
        -2 * F.cosine_similarity(z @ method.predictor.weight.T, t).mean() for z, t in ((z1, t2), (z2, t1))
    ]
    torch.testing.assert_close(out.loss, sum(directions))
    assert -4 <= out.loss.item() <= 4
    torch.testing.assert_close(small(symmetric=False)([x1, x2]).loss, directions[0])
    out.loss.backward()
    assert all(p.grad is None for n, p in method.named_parameters() if n.startswith("target_"))


def test_momentum_stays_or_rises():
    for schedule, halfway in (("constant", 0.9), ("cosine", 0.95)):
        method = small(momentum=0.9, momentum_schedule=schedule)
        for online, target in (
            (method.backbone, method.target_backbone),
            (method.projector, method.target_projector),
        ):
            for ours, theirs in zip(online.parameters(), target.parameters(), strict=True):
                ours.data.fill_(1)
                theirs.data.zero_()
        method(views())
        method.after_update(StepInfo(50, 100, 10))
        targets = [*method.target_backbone.parameters(), *method.target_projector.parameters()]
        assert all(torch.allclose(p, torch.full_like(p, 1 - halfway)) for p in targets)


def test_bfloat16_networks_keep_f_and_the_loss_in_float32():
    method = small().float()
    pair = [x.float() for x in views()]
    exact = method(pair).loss
    method.correlation.matrix.zero_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = method(pair)
    assert (out.loss.dtype, method.correlation.matrix.dtype) == (torch.float32, torch.float32)
    z = torch.cat(out.projections)
    torch.testing.assert_close(method.correlation.matrix, z.T @ z / len(z), rtol=1e-5, atol=1e-7)
    assert out.loss.item() == pytest.approx(exact.item(), abs=0.05)


def run(runtime: Runtime) -> Outcome:
    return two_steps(small(), views(), runtime)


def test_two_ranks_are_one():
    for outcome in on_ranks(run):
        assert_same_outcome(outcome, run(ALONE))


def test_a_resumed_f_goes_on():
    method = small()
    method(views())
    other = small()
    other.load_state_dict(method.state_dict())
    pair = [x.flip(0) for x in views()]
    method(pair)
    other(pair)
    torch.testing.assert_close(other.correlation.matrix, method.correlation.matrix, rtol=0, atol=0)


@pytest.mark.parametrize(
    "settings", [{"freq": 0}, {"alpha": 0.0}, {"rho": 2.0}, {"epsilon_inside": True, "rule": "directcopy"}]
)
def test_options_that_mean_nothing_are_refused(settings):
    with pytest.raises(UserError, match=f"directpred.{next(iter(settings))}"):
        DirectPredConfig(**settings).check(64)
    DirectPredConfig().check(64)


def test_published_sizes():
    backbone = TinyBackbone()
    backbone.dim = 2048
    with torch.device("meta"):
        method = DirectPred(backbone, DirectPredConfig())
    shapes = {name: tuple(p.shape) for name, p in method.named_parameters() if "backbone" not in name}
    assert shapes["projector.0.weight"] == (4096, 2048)
    assert shapes["projector.1.weight"] == (4096,)
    assert shapes["projector.3.weight"] == (256, 4096)
    assert shapes["predictor.weight"] == (256, 256)
    assert "predictor.bias" not in shapes
