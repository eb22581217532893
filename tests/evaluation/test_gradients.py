"""The gradient view: every method's decomposition against what its own loss gives the network's weights, the
indicators by hand, ranks, and losses without such a form."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from support.golden_methods import ALONE, TinyBackbone, random_views
from support.small_runs import differences, on_ranks
from torch import Tensor
from torch.nn import functional as F

from siamtransfer.distributed.runtime import Runtime, unwrap
from siamtransfer.evaluation.gradient_view.decomposition import (
    GUIDE,
    PREFIX,
    ViewGradient,
    average,
    decompose,
    indicators,
)
from siamtransfer.evaluation.gradient_view.forms import require_form
from siamtransfer.methods import METHODS, Method, Options, SimSiamConfig
from siamtransfer.methods.parts.unified_gradient import Gradient
from siamtransfer.utils.errors import UserError

HEADS = {"dim": 12, "hidden": 16}

CASES: list[tuple[str, dict[str, Any]]] = [
    ("simsiam", {"dim": 12}),
    ("simsiam", {"dim": 12, "symmetric": False}),
    ("simsiam-variants", {"dim": 12, "batch_norm": "all", "symmetric": False}),
    ("simsiam-variants", {"dim": 12, "predictor": "none", "batch_norm": "none"}),
    ("simsiam-variants", {"dim": 12, "predictor": "fixed", "predictor_shape": "residual"}),
    (
        "simsiam-variants",
        {"dim": 12, "predictor_shape": "experts", "predictor_experts": 2, "activation": "gelu"},
    ),
    ("simclr", {"dim": 12}),
    ("simclr", {"dim": 12, "temperature": 0.5, "output_norm": "none"}),
    ("moco", {"dim": 12, "queue": 24}),
    ("moco", {"dim": 12, "queue": 16, "projector_layers": 1, "temperature": 0.07}),
    ("moco-v3", HEADS),
    ("moco-v3", {**HEADS, "temperature": 0.2, "projector_layers": 3, "predictor_norm": True}),
    ("byol", HEADS),
    ("barlow-twins", HEADS),
    ("barlow-twins", {**HEADS, "redundancy": 0.3, "scale": 0.1}),
    ("vicreg", HEADS),
    ("vicreg", {**HEADS, "invariance": 3.0, "variance": 7.0, "covariance": 0.5}),
    ("directpred", HEADS),
    ("directpred", {**HEADS, "symmetric": False}),
    *(
        ("unigrad", {**HEADS, "negative": negative, "target": target, "normalise": normalise})
        for negative in ("unigrad", "contrastive", "asymmetric", "barlow-twins", "vicreg")
        for target, normalise in (("momentum", "l2"), ("stop-gradient", "l2"), ("momentum-positive", "batch"))
    ),
    ("unigrad", {**HEADS, "negative": "contrastive", "queue": 24}),
    ("byol", {**HEADS, "projector_layers": 3}),
]


def build(name: str, options: dict[str, Any]) -> Method:
    """A method in float64 whose target network, if any, and running state are not what they began as."""
    torch.manual_seed(5)
    entry = METHODS[name]
    method = entry(TinyBackbone(), entry.Config(**options)).double().train()
    with torch.no_grad():
        for part, parameter in method.named_parameters():
            if part.startswith("target_"):
                parameter += 0.1 * torch.randn_like(parameter)
    method(random_views(8, 8))  # fills averages and moves the queue
    return method


def embeddings(method: Method, views: list[Tensor]) -> list[Tensor]:
    """What the method's paper calls the embeddings of the views."""
    z = [method.get_submodule("projector")(method.backbone(x)) for x in views]
    kind = type(method).__name__
    if kind == "MoCoV3":
        z = [method.get_submodule("predictor")(each) for each in z]
    if kind == "BarlowTwins":
        z = [method.get_submodule("norm")(each) for each in z]
    l2 = kind in ("SimCLR", "MoCo", "MoCoV3") or getattr(method.config, "normalise", None) == "l2"
    return [F.normalize(each, dim=1) for each in z] if l2 else z


def encoder(method: Method) -> list[torch.nn.Parameter]:
    """The weights that embeddings are made by; those of MoCo v3 are predictions."""
    parts = ("backbone.", "projector.", *(["predictor."] if type(method).__name__ == "MoCoV3" else []))
    return [p for name, p in method.named_parameters() if name.startswith(parts) and p.requires_grad]


# The gradient.


@pytest.mark.parametrize(("name", "options"), CASES, ids=[f"{n}-{i}" for i, (n, _) in enumerate(CASES)])
def test_the_decomposition_gives_weights_the_gradient_of_the_loss(name: str, options: dict[str, Any]) -> None:
    """Closed form times the Jacobian of the embeddings is what loss.backward() leaves in the encoder."""
    method, views = build(name, options), random_views(8, 8)
    before = {key: tensor.clone() for key, tensor in method.state_dict().items()}
    found = decompose(method, views, ALONE)
    assert differences(before, method.state_dict()) == []
    for view in found:
        torch.testing.assert_close(view.gradient.total, view.autograd, rtol=1e-9, atol=1e-11)

    second = copy.deepcopy(method)
    u = embeddings(second, views)
    pushed = sum((view.gradient.total * each).sum() / 8 for view, each in zip(found, u, strict=False))
    assert isinstance(pushed, Tensor)
    ours = torch.autograd.grad(pushed, encoder(second), allow_unused=True)
    theirs = torch.autograd.grad(method(views).loss, encoder(method), allow_unused=True)
    size = max(float(each.abs().max()) for each in theirs if each is not None)
    assert size > 1e-5
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10 * size)

    one_sided = name == "moco" or options.get("symmetric") is False
    assert len(found) == (1 if one_sided else 2)
    for view, each in zip(found, u, strict=False):
        torch.testing.assert_close(view.embedding, each.detach())
    assert found[0].separable_balance == (name not in ("simsiam", "simsiam-variants", "byol"))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["simsiam", "moco", "barlow-twins", "unigrad"])
def test_a_half_precise_method_is_decomposed_in_float64_and_left_alone(
    name: str, precision: torch.dtype
) -> None:
    method = build(name, dict(next(options for case, options in CASES if case == name))).float()
    before = {key: tensor.clone() for key, tensor in method.state_dict().items()}
    runtime = Runtime(torch.device("cpu"), precision)
    found = indicators(decompose(method, [x.float() for x in random_views(8, 8)], runtime))
    assert found[PREFIX + "disagreement"] < 1e-12
    assert differences(before, method.state_dict()) == []
    assert all(p.grad is None for p in method.parameters())


def test_parts_are_what_the_papers_say() -> None:
    """MoCo's pull is -k, DirectPred's gradient has no radial part, UniGrad's is F u with balance 100."""
    views = random_views(8, 8)
    moco = build("moco", {"dim": 12, "queue": 24})
    (view,) = decompose(moco, views, ALONE)
    k = F.normalize(moco.get_submodule("target_projector")(moco.get_submodule("target_backbone")(views[1])))
    torch.testing.assert_close(view.gradient.positive, -k)
    assert indicators([view])[PREFIX + "balance"] == 1

    straight = indicators(decompose(build("directpred", HEADS), views, ALONE))
    assert straight[PREFIX + "radial"] == pytest.approx(0, abs=1e-12)

    unigrad = build("unigrad", {**HEADS, "rho": 0.0})
    first, second = decompose(unigrad, views, ALONE)
    f = torch.cat([first.target, second.target])
    f = f.T @ f / len(f)
    torch.testing.assert_close(first.gradient.negative, first.embedding @ f)
    assert indicators([first])[PREFIX + "balance"] == 100


def test_the_balance_of_predictors_with_batch_norm_is_not_told() -> None:
    found = indicators(decompose(build("byol", HEADS), random_views(8, 8), ALONE))
    assert math.isnan(found[PREFIX + "balance"])
    assert all(math.isfinite(value) for name, value in found.items() if name != PREFIX + "balance")


# The indicators.


def made_up(change: float = 0.0) -> ViewGradient:
    """Two images in the plane; `change` is how far autograd is away."""
    u1 = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    u2 = torch.tensor([[0.6, 0.8], [0.0, 1.0]], dtype=torch.float64)
    negative = torch.tensor([[3.0, 0.0], [0.0, 4.0]], dtype=torch.float64)
    balance, scale = torch.tensor([[[2.0], [1.0]], [[0.5], [2.0]]], dtype=torch.float64)
    gradient = Gradient(-u2, negative, balance, scale)
    return ViewGradient(u1, u2, gradient, gradient.total * (1 + change), separable_balance=True)


def test_indicators_by_hand() -> None:
    expected = {
        "ratio": (3 + 8) / (0.5 + 2),
        "balance": 1.5,
        "radial": (0.5 * (6 - 0.6) + 2 * (4 - 1)) / 2,
        "parts_cosine": (-0.6 - 1) / 2,
        "view_cosine": (0.6 + 1) / 2,
        "others_cosine": (0 + 0.8) / 2,
        "effective_rank": 2,
        "off_diagonal": 1,
        "disagreement": 0,
    }
    assert indicators([made_up()]) == pytest.approx({PREFIX + name: x for name, x in expected.items()})
    assert list(expected) == list(GUIDE)


def test_views_and_batches_are_averaged_and_the_worst_disagreement_told() -> None:
    one, other = made_up(), made_up(1e-9)
    other.target = one.embedding
    both = indicators([one, other])
    assert both[PREFIX + "view_cosine"] == pytest.approx((0.8 + 1) / 2)
    assert both[PREFIX + "disagreement"] == pytest.approx(1e-9, rel=1e-3)
    found = average([indicators([one]), both])
    assert found[PREFIX + "view_cosine"] == pytest.approx((0.8 + 0.9) / 2)
    assert found[PREFIX + "disagreement"] == both[PREFIX + "disagreement"]


@pytest.mark.parametrize("change", [1e-7, -2.0, math.nan])
def test_a_decomposition_that_disagrees_is_not_reported(change: float) -> None:
    with pytest.raises(UserError, match=r"away from autograd's.*not reported"):
        indicators([made_up(), made_up(change)])


def test_parts_that_cancel_disagree_by_their_rounding_only() -> None:
    u = torch.eye(3, dtype=torch.float64)
    view = ViewGradient(u, u, Gradient(-u, u * (1 + 1e-15)), torch.zeros_like(u), separable_balance=True)
    assert view.disagreement() < 1e-10
    wrong = ViewGradient(u, u, Gradient(-u, u * (1 + 1e-9)), torch.zeros_like(u), separable_balance=True)
    assert wrong.disagreement() > 1e-6


def test_embeddings_of_length_zero_are_refused() -> None:
    method = build("simsiam-variants", {"dim": 12, "predictor": "none", "batch_norm": "none"})
    with torch.no_grad():
        for parameter in method.get_submodule("projector").parameters():
            parameter.zero_()
    with pytest.raises(UserError, match="length zero"):
        indicators(decompose(method, random_views(8, 8), ALONE))


def measure_all(runtime: Runtime) -> list[list[float]]:
    """The indicators of methods that look at other ranks' rows, on this rank's share of 8 images."""
    found = []
    for name in ("simclr", "moco", "moco-v3", "byol", "barlow-twins", "vicreg"):
        options = next(options for case, options in CASES if case == name)
        method = unwrap(runtime.distribute(build_alone(name, options)))
        share = [view.chunk(runtime.world_size)[runtime.rank] for view in random_views(8, 8)]
        found.append(list(indicators(decompose(method, share, runtime)).values())[:-1])
    return found


def build_alone(name: str, options: dict[str, Any]) -> Method:
    torch.manual_seed(5)
    return METHODS[name](TinyBackbone(), METHODS[name].Config(**options)).double()


def test_two_ranks_are_one() -> None:
    one = measure_all(ALONE)
    for each in on_ranks(measure_all):
        for ours, theirs in zip(each, one, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-8, abs=1e-10, nan_ok=True)


# What has no such form.


@pytest.mark.parametrize("name", ["swav", "dino"])
def test_methods_without_such_a_form(name: str) -> None:
    with pytest.raises(UserError, match=f"gradient of {name} has no such parts.* simsiam, simclr, moco"):
        require_form(METHODS[name].Config(), 2)


def variants(**settings: Any) -> Options:
    return METHODS["simsiam-variants"].Config.from_dict(settings)


@pytest.mark.parametrize(
    ("options", "views", "words"),
    [
        (SimSiamConfig(stop_gradient=False), 2, r"simsiam\.stop_gradient makes it another"),
        (variants(similarity="mse"), 2, r"simsiam_variants\.similarity"),
        (variants(target={"gradient": 0.1}), 2, r"simsiam_variants\.target"),
        (variants(terms={"contrast": 0.1}), 2, r"simsiam_variants\.terms"),
        (variants(bottleneck={"deviation": 0.5}), 2, r"simsiam_variants\.bottleneck"),
        (SimSiamConfig(), 4, "makes 4: leave monitor.gradients_every out, or take a views.recipe"),
        (METHODS["vicreg"].Config(covariance=0.0), 2, r"vicreg\.covariance 0.*no negative part"),
        (METHODS["vicreg"].Config(invariance=0.0), 2, r"vicreg\.invariance 0.*no positive part"),
    ],
)
def test_losses_without_such_a_form(options: Any, views: int, words: str) -> None:
    with pytest.raises(UserError, match=words):
        require_form(options, views)
