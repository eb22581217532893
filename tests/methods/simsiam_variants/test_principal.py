"""The projector's factors by principal components, against scikit-learn's and as an invariance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from support.golden_methods import TinyBackbone
from support.small_simsiam import VIEWS, random_rows, small_variant
from torch import nn

from siamtransfer.config import MethodConfig, PretrainConfig
from siamtransfer.methods import StepInfo
from siamtransfer.methods.simsiam_variants.columns import ColumnsConfig
from siamtransfer.methods.simsiam_variants.model import SimSiamVariants
from siamtransfer.methods.simsiam_variants.options import SimSiamVariantsConfig
from siamtransfer.methods.simsiam_variants.principal import principal_directions, set_factors
from siamtransfer.methods.simsiam_variants.targets import TargetConfig
from siamtransfer.utils.errors import UserError


def test_directions_are_those_of_scikit_learn_with_a_sign():
    x = random_rows(40, 6) * torch.tensor([3.0, 1, 2, 0.1, 5, 1])
    ours = principal_directions(x - x.mean(dim=0), 3).T.numpy()
    theirs = PCA(3).fit(x.numpy()).components_
    theirs *= np.sign(theirs[np.arange(3), np.abs(theirs).argmax(axis=1)])[:, None]
    np.testing.assert_allclose(ours, theirs, atol=1e-9)


def small_factors(rank: int) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Linear(6, 5), nn.Identity(), nn.Linear(5, rank, bias=False), nn.Linear(rank, 4)]
    return nn.Sequential(*layers).double()


def test_what_varies_in_few_directions_is_projected_as_before():
    g = small_factors(2)
    h = random_rows(20, 1) @ random_rows(1, 6, 1) + random_rows(20, 1, 2) @ random_rows(1, 6, 3) + 7
    before = g(h)
    set_factors([g], [h[:8], h[8:]])
    torch.testing.assert_close(g(h), before)
    basis = g[2].weight
    torch.testing.assert_close(basis @ basis.T, torch.eye(2, dtype=torch.float64))
    x = g[0](h)
    x = x - x.mean(dim=0)
    torch.testing.assert_close(x @ basis.T @ basis, x)


def test_hand_computed_factors():
    g = nn.Sequential(nn.Linear(2, 1, bias=False), nn.Linear(1, 1)).double()
    with torch.no_grad():
        g[0].weight.copy_(torch.tensor([[1.0, 1.0]]))
        g[1].weight.fill_(2)
        g[1].bias.fill_(1)
    x = torch.tensor([[4.0, 5.0], [4.0, -5.0]], dtype=torch.float64)  # varies along the second channel only
    set_factors([g], [x])
    assert g[0].weight.tolist() == [[0, 1]]
    assert g[1].weight.item() == pytest.approx(2)  # 2 (1, 1) · (0, 1)
    assert g[1].bias.item() == pytest.approx(1 + 2 * 4)  # what the mean of the lost channel gave


def test_a_pass_of_too_few_views_has_not_so_many_components():
    g, h = small_factors(3), random_rows(4, 6)
    set_factors([g], [h[:2], h[2:]])
    with pytest.raises(UserError, match=r"projector_rank 3 asks for .* 3 views .* 2 or less.*grad_accum"):
        set_factors([g], [h[:3]])


def info(step: int) -> StepInfo:
    return StepInfo(step, 100, 10)


@pytest.mark.parametrize(
    ("kind", "every", "fitted"),
    [("none", 1, []), ("start", 1, [0]), ("refit", 1, [0, 10, 20, 30]), ("refit", 3, [0, 30])],
)
def test_fits_are_due_at_the_start_of_their_epochs(kind: Any, every: int, fitted: list[int]):
    method = small_variant(projector_rank=4, projector_pca=kind, projector_pca_every=every)
    due = []
    for step in range(35):
        method.before_forward(info(step))
        due += [step] * method.fit_due
    assert due == fitted


def test_a_fit_is_made_once_in_a_step_and_a_second_network_gets_it():
    target = TargetConfig(fraction=0.5)
    method = small_variant(projector_rank=4, projector_pca="start", target=target)
    random = method.projector[6].weight.clone()
    method.before_forward(info(0))
    method(VIEWS)
    fitted = method.projector[6].weight.clone()
    torch.testing.assert_close(fitted @ fitted.T, torch.eye(4, dtype=torch.float64))
    assert not torch.equal(fitted, random)
    assert torch.equal(method.target_projector[6].weight, fitted)
    assert not method.target_projector[6].weight.requires_grad
    for name, tensor in method.projector[7].state_dict().items():
        assert torch.equal(method.target_projector[7].state_dict()[name], tensor)
    method([x + 1 for x in VIEWS])  # a second micro-batch of the same step
    assert torch.equal(method.projector[6].weight, fitted)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"projector_pca": "start"},
            r"projector_pca start sets the factors .*projector_rank makes: set",
        ),
        ({"projector_pca_every": 2}, r"projector_pca_every belongs to .* refit, and that is none: set that"),
        (
            {"projector_pca": "start", "projector_rank": 16},
            r"projector_rank 16 asks for more .* of 8 images have: lower it to 15 or less, or raise optim",
        ),
        (
            {"projector_pca": "start", "projector_rank": 4, "projector_norm": "group-ws"},
            r"projector_pca start sets weights that .*group-ws standardises: leave one of them out",
        ),
        (
            {"projector_pca": "refit", "projector_rank": 4, "columns": ColumnsConfig(heads="all")},
            r"projector_pca refit knows one projector, and .*heads all makes two: leave one of them out",
        ),
    ],
)
def test_components_that_mean_nothing_are_refused(options: Any, sentence: str):
    with pytest.raises(UserError, match=r"simsiam_variants\." + sentence):
        SimSiamVariantsConfig(**options).check(8)


def test_more_components_than_channels_are_refused():
    config = SimSiamVariantsConfig(projector_rank=17, projector_pca="start")
    with pytest.raises(UserError, match=r"projector_rank 17 is more than the 16 principal components"):
        SimSiamVariants(TinyBackbone(), config)  # type: ignore[arg-type]


def test_slow_weights_do_not_go_with_components_that_turn():
    options = SimSiamVariantsConfig(projector_rank=4, projector_pca="refit")
    config = PretrainConfig(method=MethodConfig("simsiam-variants"), method_options=options)
    config.check()
    config.optim.lookahead = 6
    with pytest.raises(UserError, match=r"projector_pca refit turns .* optim\.lookahead keep the old ones"):
        config.check()
    options.projector_pca = "start"
    config.check()
