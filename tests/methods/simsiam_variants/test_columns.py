"""Networks of their own for the columns of pairs, against formulas; what shares weights and what does not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.golden_methods import TinyBackbone
from support.small_simsiam import VIEWS, gradients, small_variant
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from siamtransfer.checkpoints.declaration import declare, read_declaration
from siamtransfer.evaluation.gradient_view.forms import require_form
from siamtransfer.methods.simsiam_variants.columns import ColumnsConfig, with_own_norms
from siamtransfer.methods.simsiam_variants.model import SimSiamVariants
from siamtransfer.methods.simsiam_variants.options import SimSiamVariantsConfig
from siamtransfer.methods.simsiam_variants.targets import TargetConfig
from siamtransfer.utils.errors import UserError

EVERY = [
    ColumnsConfig(trunks=2),
    ColumnsConfig(trunks=2, heads="all"),
    ColumnsConfig(trunks=2, heads="shared"),
    ColumnsConfig(batch_norm="separate"),
    ColumnsConfig(heads="predictors"),
    ColumnsConfig(batch_norm="separate", heads="all"),
]


def variant(columns: ColumnsConfig, **options: Any) -> SimSiamVariants:
    method = small_variant(columns=columns, **options)
    if columns.trunks == 2:
        torch.manual_seed(1)
        method.add_trunk(TinyBackbone().double())
    return method


def minus_cosine(p: Tensor, t: Tensor) -> Tensor:
    return -cosine_similarity(p, t.detach(), dim=1).mean()


@pytest.mark.parametrize("columns", EVERY)
def test_each_view_goes_through_the_networks_of_its_column(columns: ColumnsConfig) -> None:
    method = variant(columns)
    f, g, h = method.backbone, method.projector, method.predictor
    own = {name: getattr(method, f"second_{name}", None) for name in ("backbone", "projector", "predictor")}
    assert (own["backbone"] is not None) == (columns.trunks == 2 or columns.batch_norm == "separate")
    assert (own["predictor"] is not None) == (columns.own_heads != "shared")
    assert (own["projector"] is not None) == (columns.own_heads == "all")
    f2, g2, h2 = own["backbone"] or f, own["projector"] or g, own["predictor"] or h
    z1, z2 = g(f(VIEWS[0])), g2(f2(VIEWS[1]))
    expected = (minus_cosine(h(z1), z2) + minus_cosine(h2(z2), z1)) / 2
    assert method(VIEWS).loss.item() == pytest.approx(expected.item(), abs=1e-12)


@pytest.mark.parametrize("columns", EVERY)
@pytest.mark.parametrize("options", [{}, {"backbone_lr_scale": 0.5}])
def test_every_parameter_is_in_one_group_and_gets_a_gradient(
    columns: ColumnsConfig, options: dict[str, Any]
) -> None:
    method = variant(columns, **options)
    found = gradients(method)
    grouped = [id(parameter) for group in method.groups() for parameter in group.parameters]
    trained = {id(parameter) for parameter in method.parameters() if parameter.requires_grad}
    assert len(grouped) == len(set(grouped)) and set(grouped) == trained
    named = {name for name, parameter in method.named_parameters() if parameter.requires_grad}
    assert named == set(found)
    scaled = {id(p) for group in method.groups() if group.lr_scale == 0.5 for p in group.parameters}
    second = getattr(method, "second_backbone", method.backbone)
    both = {id(p) for network in (method.backbone, second) for p in network.parameters()}
    assert scaled == (both if options else set())


def test_own_norms_share_every_other_tensor_and_begin_equal() -> None:
    method = variant(ColumnsConfig(batch_norm="separate"))
    first, second = method.backbone, method.second_backbone
    norms = {name for name, module in first.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert norms
    for name, tensor in first.state_dict(keep_vars=True).items():
        other = second.state_dict(keep_vars=True)[name]
        assert torch.equal(tensor, other)
        assert (tensor is other) == (name.rpartition(".")[0] not in norms), name
    views = [VIEWS[0], 3 + 2 * VIEWS[1]]
    method(views)
    norm = sorted(norms)[0]
    means = [network.get_submodule(norm).running_mean for network in (first, second)]
    assert (means[0] - means[1]).abs().max() > 0.01


def test_equal_norms_give_the_plain_loss_and_the_sum_of_their_gradients() -> None:
    plain, apart = small_variant(), variant(ColumnsConfig(batch_norm="separate"))
    assert torch.equal(plain(VIEWS).loss, apart(VIEWS).loss)
    ours, theirs = gradients(apart), gradients(plain)
    for name, gradient in theirs.items():
        second = ours.get(name.replace("backbone.", "second_backbone.", 1)) if "backbone" in name else None
        whole = ours[name] if second is None else ours[name] + second
        torch.testing.assert_close(whole, gradient, rtol=1e-10, atol=1e-14)


def test_views_alternate_between_the_columns() -> None:
    method = variant(ColumnsConfig(trunks=2))
    four = [*VIEWS, *(view.flip(0) * 0.5 for view in VIEWS)]
    assert len(four) == 4
    z = method(four).projections
    networks = (method.backbone, method.second_backbone)
    for view, projection in enumerate(z):
        again = method.projector(networks[view % 2](four[view]))
        torch.testing.assert_close(projection, again.detach(), rtol=1e-12, atol=1e-12)


def test_trunks_of_other_channels_predict_each_other() -> None:
    class OneChannel(TinyBackbone):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.expand(-1, 3, -1, -1))

    method = small_variant(columns=ColumnsConfig(trunks=2))
    method.add_trunk(OneChannel().double())
    out = method([VIEWS[0], VIEWS[1][:, :1]])
    assert len(out.projections) == 2 and -1 < out.loss.item() < 1
    z1, z2 = out.projections
    expected = (minus_cosine(method.predictor(z1), z2) + minus_cosine(method.second_predictor(z2), z1)) / 2
    assert out.loss.item() == pytest.approx(expected.item(), abs=1e-12)


def test_a_checkpoint_declares_the_second_backbone_as_a_branch() -> None:
    keys = declare(variant(ColumnsConfig(trunks=2, heads="all")))
    assert keys["second"] == "second_backbone." and keys["evaluated"] == "backbone"
    assert {"second_projector", "second_predictor"} <= set(keys["heads"])
    assert list(read_declaration(keys).branches.items()) == [
        ("backbone", "backbone"), ("second", "second_backbone"),
    ]  # fmt: skip
    assert "second" not in declare(small_variant())


@pytest.mark.parametrize(
    "columns, options, problem",
    [
        ({"trunks": 2, "batch_norm": "separate"}, {}, "two trunks have batch norms of their own"),
        ({"trunks": 2}, {"symmetric": False}, "trunks 2 needs both directions"),
        ({"trunks": 2}, {"target": TargetConfig(fraction=0.5)}, "trunks 2 has no second network for targets"),
        ({"heads": "predictors"}, {"predictor": "none"}, "heads predictors changes nothing without"),
    ],
)
def test_what_does_not_go_together(columns: Any, options: Any, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        SimSiamVariantsConfig(columns=ColumnsConfig(**columns), **options).check(64)


def test_a_network_without_batch_norm_has_none_to_separate() -> None:
    backbone = TinyBackbone()
    for name, module in list(backbone.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            setattr(backbone, name, nn.Identity())
    backbone.name = "tiny"
    with pytest.raises(UserError, match="tiny has no batch norm, so leave it out"):
        with_own_norms(backbone)


@pytest.mark.parametrize("columns", EVERY)
def test_the_gradient_view_knows_one_network_for_both_columns(columns: ColumnsConfig) -> None:
    with pytest.raises(UserError, match=r"one network for both views, and simsiam_variants\.columns\."):
        require_form(SimSiamVariantsConfig(columns=columns), 2)
    require_form(SimSiamVariantsConfig(columns=ColumnsConfig(heads="shared")), 2)
