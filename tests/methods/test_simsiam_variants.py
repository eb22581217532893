"""SimSiam's options beyond the published code, against hand-computed values and public libraries, and as
invariances: an option at its neutral value is SimSiam to the bit."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special, stats
from scipy.spatial.distance import jensenshannon
from sklearn.metrics import log_loss
from support.golden_methods import TinyBackbone, assert_same_outcome, random_views
from support.small_runs import assert_same_run, complete, launch, newest, on_ranks, rows, stop_at
from torch import Tensor, nn

from siamtransfer.backbones.architecture import build_backbone
from siamtransfer.checkpoints.read_backbone import load_backbone
from siamtransfer.checkpoints.training_state import Checkpoints
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.diagnostics.projector import read_projector
from siamtransfer.methods import SimSiam, SimSiamConfig, StepInfo
from siamtransfer.methods.parts.mlp import ACTIVATIONS
from siamtransfer.methods.simsiam_variants.clusters import ClusterConfig, PseudoLabels
from siamtransfer.methods.simsiam_variants.extra_losses import (
    Contrast,
    Encoded,
    Labels,
    Rotation,
    TermsConfig,
)
from siamtransfer.methods.simsiam_variants.heads import Experts, Residual
from siamtransfer.methods.simsiam_variants.similarities import Distance, DistanceConfig, SimilarityName
from siamtransfer.methods.simsiam_variants.targets import Memory, StopGradient, TargetConfig, aims
from siamtransfer.optim.optimizers import OptimConfig, build_optimizer
from siamtransfer.training.guard import StepContext
from siamtransfer.training.step import update
from siamtransfer.utils.errors import UserError

ALONE = Runtime(torch.device("cpu"), torch.float32)
IMAGES = 24
LABELS = torch.arange(IMAGES) % 3
VIEWS = random_views(16, 16)


def small(**options: Any) -> SimSiam:
    torch.manual_seed(0)
    method = SimSiam(TinyBackbone(), SimSiamConfig(dim=12, **options))
    method.prepare(IMAGES, LABELS)
    return method.double()


def gradients(method: SimSiam, views: list[Tensor] = VIEWS) -> dict[str, Tensor]:
    method(views, torch.arange(len(views[0]))).loss.backward()
    return {name: p.grad for name, p in method.named_parameters() if p.grad is not None}


def random_rows(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def trained(method: SimSiam, runtime: Runtime, steps: int, steps_per_epoch: int = 2) -> Any:
    """The mean loss, gradients and state after some steps as pretrain/main.py makes them, on this rank's
    share of each batch of 8 images."""
    model = runtime.distribute(method)
    optimizer = build_optimizer(OptimConfig(lr=0.1, batch=256), method.groups())
    kept: dict[str, Tensor] = {}
    method.before_update = lambda info: kept.update(  # type: ignore[method-assign]
        {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}
    )
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        views = [torch.randn(8, 3, 16, 16, generator=generator, dtype=torch.float64) for _ in range(2)]
        index = torch.randperm(IMAGES, generator=generator)[:8]
        *mine, own = [rows.chunk(runtime.world_size)[runtime.rank] for rows in (*views, index)]
        torch.manual_seed(100 * step + runtime.rank)
        info = StepInfo(step, steps, steps_per_epoch)
        _, verdict = update(
            model, optimizer, runtime.scaler(), mine, 1, runtime, None, StepContext(step, 0.1, own), info=info
        )
    return torch.tensor(verdict.loss), kept, method.state_dict()


# Defaults.


def test_the_papers_options_add_nothing_to_a_checkpoint():
    method = small()
    assert {name.split(".")[0] for name in method.state_dict()} == {"backbone", "projector", "predictor"}
    assert not method.uses_index
    assert method(VIEWS).numbers == {}


def test_two_views_give_the_papers_loss_to_the_bit():
    method = small()
    ours = method(VIEWS).loss
    z1, z2 = (method.projector(method.backbone(x)) for x in VIEWS)
    p1, p2 = method.predictor(z1), method.predictor(z2)
    assert ours == method.distance(p1, z2) / 2 + method.distance(p2, z1) / 2


# Stop-gradient.


@pytest.mark.parametrize(("share", "other"), [(0.0, {}), (1.0, {"stop_gradient": False})])
def test_the_ends_of_a_partial_gradient_are_stop_gradient_and_none(share: float, other: Any):
    ours, theirs = gradients(small(target=TargetConfig(gradient=share))), gradients(small(**other))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_partial_gradient_lies_between_and_changes_no_loss():
    none, some, full = (small(target=TargetConfig(gradient=share)) for share in (0.0, 0.3, 1.0))
    assert none(VIEWS).loss == some(VIEWS).loss == full(VIEWS).loss
    g0, g3, g1 = gradients(none), gradients(some), gradients(full)
    for name, ours in g3.items():
        torch.testing.assert_close(ours, 0.7 * g0[name] + 0.3 * g1[name], rtol=1e-9, atol=1e-13)
    assert (g0["backbone.c1.weight"] - g1["backbone.c1.weight"]).abs().max() > 1e-4


@pytest.mark.parametrize(("spread", "share"), [(0.0, 0.0), (0.5, 0.0), (0.6, 0.2), (0.75, 0.5), (1.2, 0.8)])
def test_a_dynamic_gradient_opens_as_outputs_spread(spread: float, share: float):
    target = StopGradient(TargetConfig(gradient=0.8, spread=[0.5, 0.9]), stop=True)
    assert target.share == 0
    target.spread.fill_(spread)
    assert target.share == pytest.approx(share, abs=1e-6)


def test_the_spread_is_a_moving_average_of_the_papers_measure():
    method = small(target=TargetConfig(gradient=0.5, spread=[0.0, 1.0]))
    out = method(VIEWS)
    z = torch.cat(out.projections).numpy()
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    expected = 0.1 * np.std(z, axis=0, ddof=1).mean() * np.sqrt(12)
    assert float(method.target.spread) == pytest.approx(expected, rel=1e-6)
    assert float(out.numbers["simsiam/target_gradient"]) == pytest.approx(0.5 * expected, rel=1e-6)


# The second network.


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_a_second_network_without_momentum_is_simsiam_to_the_bit(share: float):
    loss, _, plain = trained(small(), ALONE, 3)
    ours, _, state = trained(small(target=TargetConfig(share=share, momentum=0)), ALONE, 3)
    assert loss == ours
    assert all(torch.equal(state[name], tensor) for name, tensor in plain.items())


def test_a_second_network_with_momentum_is_not():
    plain, ours = trained(small(), ALONE, 3), trained(small(target=TargetConfig(share=1)), ALONE, 3)
    assert plain[0] != ours[0]
    for name in ("backbone.c1.weight", "projector.0.weight"):
        assert not torch.equal(ours[2][name], ours[2][f"target_{name}"])


def test_alternation_aims_at_the_weights_of_the_last_round():
    method = small(target=TargetConfig(share=1, momentum=0, every=2))
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.5)
    for step in range(5):
        if step % 2 == 0:
            f, g = copy.deepcopy(method.backbone), copy.deepcopy(method.projector)
        method.before_forward(StepInfo(step, 5, 5))
        with torch.no_grad():
            t1, t2 = (g(f(x)) for x in VIEWS)
        probe = copy.deepcopy(method)
        p1, p2 = (probe.predictor(probe.projector(probe.backbone(x))) for x in VIEWS)
        expected = (method.distance(p1, t2) + method.distance(p2, t1)) / 2
        loss = method(VIEWS).loss
        torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_update(StepInfo(step, 5, 5))


def test_the_second_network_comes_and_goes_by_epoch():
    method = small(target=TargetConfig(share=0.4, start_epoch=1, stop_epoch=3))
    shares = []
    for step in range(0, 10, 2):
        method.before_forward(StepInfo(step, 10, 2))
        shares.append(method.share)
    assert shares == [0, 0.4, 0.4, 0, 0]


# The average over augmentations.


def test_targets_are_averages_over_augmentations():
    memory = Memory(5, 3, 0.8).double()
    first, second = random_rows(2, 3, 1), random_rows(2, 3, 2)
    index = torch.tensor([4, 1])
    ours = memory([first, second], index)
    assert torch.equal(ours[0], first)
    assert torch.equal(ours[1], second)
    average = (first + second) / 2
    torch.testing.assert_close(memory.average[index], average)
    assert memory.seen.tolist() == [False, True, False, False, True]
    third = random_rows(2, 3, 3)
    ours = memory([third, second], torch.tensor([1, 0]))
    torch.testing.assert_close(ours[0][0], 0.8 * average[1] + 0.2 * third[0])
    torch.testing.assert_close(ours[1][0], 0.8 * average[1] + 0.2 * second[0])
    torch.testing.assert_close(memory.average[1], 0.8 * average[1] + 0.2 * (third[0] + second[0]) / 2)
    torch.testing.assert_close(memory.average[4], average[0])


def test_the_average_replaces_the_predictor_and_passes_no_gradient():
    method = small(predictor="none", target=TargetConfig(memory=0.8))
    index = torch.arange(8)
    method(VIEWS, index)
    old = method.memory.average[index].clone()
    loss = method(VIEWS, index).loss
    z1, z2 = (method.projector(method.backbone(x)) for x in VIEWS)
    t1, t2 = (0.8 * old + 0.2 * z.detach() for z in (z1, z2))
    expected = (method.distance(z1, t2) + method.distance(z2, t1)) / 2
    torch.testing.assert_close(loss, expected)
    ours = torch.autograd.grad(loss, method.backbone.c1.weight)
    torch.testing.assert_close(ours, torch.autograd.grad(expected, method.backbone.c1.weight))


# More than two views.


def test_who_aims_at_what():
    t1, t2, t3, t4 = targets = list(random_rows(4, 3))

    def found(targets: list[Tensor], views: int, **how: bool) -> list[tuple[int, list[float]]]:
        return [(i, t.tolist()) for i, t in aims(targets, views, **{"each": True, "symmetric": True, **how})]

    assert found([t1, t2], 2) == found([t1, t2], 2, each=False) == [(0, t2.tolist()), (1, t1.tolist())]
    assert len(found(targets, 4)) == 12
    assert found([t1, t2], 3)[2:] == [(2, t1.tolist()), (2, t2.tolist())]
    assert found([t1, t2, t3], 3, each=False)[0] == (0, ((t2 + t3) / 2).tolist())
    assert found(targets, 4, symmetric=False) == [(0, t2.tolist()), (2, t4.tolist())]


def test_views_of_views_are_pairs():
    views = random_views(16, 16, 16)
    for views_of, pairs in (("each", None), ("mean", None)):
        method = small(target=TargetConfig(views=views_of))
        loss = method(views).loss
        z = [method.projector(method.backbone(x)) for x in views]
        p = [method.predictor(one) for one in z]
        if views_of == "each":
            pairs = [method.distance(p[i], z[j]) for i, j in itertools.permutations(range(3), 2)]
        else:
            pairs = [method.distance(p[i], sum(z[j] for j in range(3) if j != i) / 2) for i in range(3)]
        torch.testing.assert_close(loss, sum(pairs) / len(pairs), rtol=1e-12, atol=1e-12)


def test_small_crops_predict_and_are_not_predicted():
    method = small()
    views = random_views(16, 16, 8)
    loss = method(views).loss
    z = [method.projector(method.backbone(x)) for x in views]
    p = [method.predictor(one) for one in z]
    pairs = [method.distance(p[i], z[j]) for i, j in ((0, 1), (1, 0), (2, 0), (2, 1))]
    torch.testing.assert_close(loss, sum(pairs) / 4, rtol=1e-12, atol=1e-12)


# Similarities.


def by_hand(name: SimilarityName, p: np.ndarray, z: np.ndarray) -> float:
    q, t = special.softmax(p / 0.7, axis=1), special.softmax(z / 0.4, axis=1)
    match name:
        case "cosine":
            unit_p, unit_z = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (p, z))
            return -(unit_p * unit_z).sum(axis=1).mean()
        case "cross-entropy":
            return -(t * np.log(q)).sum(axis=1).mean()
        case "kl":
            return stats.entropy(t, q, axis=1).mean()
        case "js":
            return (jensenshannon(t, q, axis=1) ** 2).mean()
        case "mse":
            return ((p - z) ** 2).mean()
        case "huber":
            return special.huber(1, p - z).mean()
    raise AssertionError(name)


TEMPERATURES = {"prediction_temperature": 0.7, "target_temperature": 0.4}


@pytest.mark.parametrize("name", ["cosine", "cross-entropy", "kl", "js", "mse", "huber"])
def test_similarities_are_their_formulas(name: SimilarityName):
    p, z = 2 * random_rows(6, 5, 1), 2 * random_rows(6, 5, 2)
    distance = Distance(name, DistanceConfig(**TEMPERATURES))
    assert distance(p, z).item() == pytest.approx(by_hand(name, p.numpy(), z.numpy()), rel=1e-10)


@pytest.mark.parametrize(("name", "least"), [("cosine", -1), ("kl", 0), ("js", 0), ("mse", 0), ("huber", 0)])
def test_similarities_are_least_where_both_agree(name: SimilarityName, least: float):
    z = random_rows(6, 5)
    distance = Distance(name, DistanceConfig())
    assert distance(z, z).item() == pytest.approx(least, abs=1e-12)
    assert distance(z + 0.1 * random_rows(6, 5, 1), z).item() > least + 1e-5


def test_sliced_wasserstein_compares_clouds():
    distance = Distance("sliced-wasserstein", DistanceConfig(slices=200))
    z = random_rows(9, 4)
    assert distance(z[torch.randperm(9)], z).item() == pytest.approx(0, abs=1e-24)
    p = random_rows(9, 1, 1)  # in one dimension every direction is the axis
    expected = ((np.sort(p.numpy(), axis=0) - np.sort(z[:, :1].numpy(), axis=0)) ** 2).mean()
    assert distance(p, z[:, :1]).item() == pytest.approx(expected, rel=1e-10)
    shifted = distance(z + torch.tensor([3.0, 0, 0, 0]), z).item()
    assert shifted == pytest.approx(9 / 4, rel=0.25)  # the mean of (3 cos)² over directions


def test_several_similarities_are_weighted():
    weights: dict[SimilarityName, float] = {"cosine": 2.0, "mse": 0.25}
    p, z = random_rows(6, 5, 1), random_rows(6, 5, 2)
    each = [Distance(name, DistanceConfig())(p, z) for name in weights]
    fixed = Distance("kl", DistanceConfig(weights=weights))
    torch.testing.assert_close(fixed(p, z), 2 * each[0] + 0.25 * each[1])
    learned = Distance("kl", DistanceConfig(weights=weights, learned=True)).double()
    loss = learned(p, z)
    torch.testing.assert_close(loss, 2 * (each[0] + 1) + 0.25 * each[1] - np.log(2) - np.log(0.25))
    loss.backward()
    gradient = torch.stack([2 * (each[0] + 1) - 1, 0.25 * each[1] - 1])
    torch.testing.assert_close(learned.log_weights.grad, gradient)


def test_learned_weights_are_trained_and_the_default_has_none():
    method = small(distance=DistanceConfig(weights={"cosine": 1, "js": 1}, learned=True))
    groups = {group.name: group.parameters for group in method.groups()}
    assert [p is method.distance.log_weights for p in groups["weights of similarities"]] == [True]
    assert not list(small().distance.parameters())


# Heads.


def test_a_residual_predictor_adds():
    method = small(predictor_shape="residual")
    z = random_rows(8, 12)
    assert isinstance(method.predictor, Residual)
    torch.testing.assert_close(method.predictor(z) - z, method.predictor.mlp(z))


def test_experts_are_weighted_by_their_gates():
    method = small(predictor_shape="experts", predictor_experts=3)
    predictor, z = method.predictor, random_rows(8, 12)
    assert isinstance(predictor, Experts)
    scores = (z @ predictor.gate.weight.T + predictor.gate.bias).detach().numpy()
    gates = special.softmax(scores, axis=1)
    expected = sum(torch.from_numpy(gates[:, k : k + 1]) * predictor.experts[k](z) for k in range(3))
    torch.testing.assert_close(predictor(z), expected)
    expected_usage = stats.entropy(gates.mean(axis=0)) / np.log(3)
    assert predictor.usage(z).item() == pytest.approx(expected_usage, rel=1e-5)
    assert method(VIEWS).numbers.keys() == {"simsiam/expert_usage"}


def test_equal_experts_are_one():
    method = small(predictor_shape="experts")
    for expert in method.predictor.experts:
        expert.load_state_dict(method.predictor.experts[0].state_dict())
    z = random_rows(8, 12)
    torch.testing.assert_close(method.predictor(z), method.predictor.experts[0](z))


def linear_widths(module: nn.Module) -> list[tuple[int, int]]:
    return [(m.in_features, m.out_features) for m in module.modules() if isinstance(m, nn.Linear)]


def test_layers_rank_and_activation():
    method = small(predictor_layers=3, projector_rank=4, activation="silu", projector_layers=2)
    assert linear_widths(method.predictor) == [(12, 3), (3, 3), (3, 12)]
    assert linear_widths(method.projector) == [(16, 16), (16, 4), (4, 12)]
    assert [type(layer).__name__ for layer in method.projector] == [
        "Linear", "BatchNorm1d", "SiLU", "Linear", "Linear", "BatchNorm1d",
    ]  # fmt: skip
    assert method.projector[-2].bias.requires_grad is False
    h = random_rows(40, 16)
    assert torch.linalg.matrix_rank(method.projector(h) - method.projector(h).mean(dim=0), rtol=1e-9) == 4
    gradients(method)
    assert linear_widths(small(predictor_layers=1).predictor) == [(12, 12)]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_stands_between_layers_only(name: Any):
    method = small(activation=name)
    kind = type(ACTIVATIONS[name]())
    counts = [sum(type(layer) is kind for layer in head) for head in (method.projector, method.predictor)]
    assert counts == [2, 1]


def test_a_backbone_may_learn_at_a_rate_of_its_own():
    method = small(backbone_rate_scale=0.1)
    groups = {group.name: group for group in method.groups()}
    assert list(groups) == ["backbone", "projector", "predictor"]
    assert groups["backbone"].lr_scale == 0.1
    grouped = [id(p) for group in groups.values() for p in group.parameters]
    assert sorted(grouped) == sorted(id(p) for p in method.parameters() if p.requires_grad)


@pytest.mark.parametrize(("name", "size"), [("test_vit", 160), ("test_convnext", 32)])
def test_transformers_and_convnext_train(name: str, size: int):
    torch.manual_seed(0)
    method = SimSiam(build_backbone(name), SimSiamConfig(dim=16, freeze_patches=name == "test_vit"))
    out = method(list(torch.randn(2, 3, 3, size, size)))
    out.loss.backward()
    assert -1 <= out.loss.item() <= 1
    still = {key for key, p in method.backbone.model.named_parameters() if p.grad is None}
    assert still == ({"patch_embed.proj.weight", "patch_embed.proj.bias"} if name == "test_vit" else set())
    assert any(isinstance(layer, nn.BatchNorm1d) for layer in method.projector)


def test_only_a_transformer_has_patches_to_freeze():
    with pytest.raises(UserError, match=r"freeze_patches is for a ViT's patch embedding"):
        small(freeze_patches=True)


# Clusters.


def with_clusters(labels: list[int], **options: Any) -> PseudoLabels:
    clusters = PseudoLabels(len(labels), 2, ClusterConfig(**{"share": 1.0, **options}))
    clusters.cluster.copy_(torch.tensor(labels))
    return clusters


def test_a_partner_is_another_image_of_the_cluster():
    clusters = with_clusters([0, 0, 0, 1, 1, 2, -1, -1])
    index = torch.tensor([5, 0, 3, 6, 1, 4, 2, 7])
    drawn = torch.stack([clusters.partners(index) for _ in range(600)])
    for row, candidates in enumerate([[0], [4, 6], [5], [3], [1, 6], [2], [1, 4], [7]]):
        values, counts = drawn[:, row].unique(return_counts=True)
        assert values.tolist() == candidates, row
        assert stats.chisquare(counts.numpy()).pvalue > 1e-4 or len(candidates) == 1


def test_partners_replace_their_share_of_targets():
    clusters = with_clusters([0] * 8, share=0.25)
    index, own = torch.arange(8), torch.arange(8)
    replaced = torch.stack([clusters.partners(index) != own for _ in range(500)]).double().mean()
    assert replaced.item() == pytest.approx(0.25, abs=0.03)
    targets = [random_rows(8, 3, seed) for seed in (1, 2)]
    torch.manual_seed(3)
    chosen = clusters.partners(index)
    torch.manual_seed(3)
    ours = clusters(targets, random_rows(8, 2), index)
    assert all(torch.equal(t, target[chosen]) for t, target in zip(ours, targets, strict=True))
    assert torch.equal(with_clusters([0] * 8, share=0.0).partners(index), own)


def test_rounds_of_k_means_find_the_groups_and_tell_whether_they_last():
    clusters = PseudoLabels(12, 2, ClusterConfig(share=1, count=3, every=2))
    corners = torch.tensor([[1.0, 0], [-0.5, 0.8], [-0.5, -0.8]])
    group = torch.arange(12) % 3
    seen = torch.arange(11)  # an image that no batch had yet stays without a cluster
    clusters([], corners[group[seen]] + 0.01 * random_rows(11, 2).float(), seen)
    torch.testing.assert_close(clusters.features[seen].norm(dim=1), torch.ones(11))
    for step, fitted in ((0, False), (5, False), (10, False), (19, False), (20, True)):
        clusters.before_forward(StepInfo(step, 100, 10))
        assert bool((clusters.cluster[seen] >= 0).all()) == fitted, step
    assert clusters.cluster[11] == -1
    assert len({(a, b) for a, b in zip(group[seen].tolist(), clusters.cluster.tolist(), strict=False)}) == 3
    assert clusters.agreement == 0
    clusters.before_forward(StepInfo(40, 100, 10))
    assert clusters.agreement == pytest.approx(1)


def test_before_the_first_round_clusters_change_nothing():
    plain, ours = small(), small(clusters=ClusterConfig(share=1.0))
    assert plain(VIEWS).loss == ours(VIEWS, torch.arange(8)).loss


# Terms.


def encoded(**parts: Any) -> Encoded:
    empty: dict[str, Any] = {
        "backbone": nn.Identity(), "views": [], "features": [], "predictions": [], "targets": [],
        "index": None,
    }  # fmt: skip
    return Encoded(**{**empty, **parts})


def test_labels_are_learned_from_their_share_of_every_class():
    term = Labels(4, LABELS, TermsConfig(labels=1, labelled_share=0.25)).double()
    known = torch.nonzero(term.table >= 0).flatten()
    assert torch.equal(term.table[known], LABELS[known])
    assert torch.bincount(term.table[known]).tolist() == [2, 2, 2]
    again = Labels(4, LABELS, TermsConfig(labels=1, labelled_share=0.25))
    assert torch.equal(term.table, again.table)

    features, index = [random_rows(IMAGES, 4, seed) for seed in (1, 2)], torch.arange(IMAGES)
    loss = term(encoded(features=features, index=index)).item()
    probabilities = [term.classifier(h).softmax(dim=1)[known].detach().numpy() for h in features]
    expected = np.mean([log_loss(LABELS[known], p, labels=[0, 1, 2]) for p in probabilities])
    assert loss == pytest.approx(expected, rel=1e-10)
    unlabelled = index[term.table < 0][:5]
    assert term(encoded(features=[features[0][:5]], index=unlabelled)).item() == 0


@pytest.mark.parametrize("reach", [True, False])
def test_labels_reach_the_backbone_if_they_may(reach: bool):
    terms = TermsConfig(labels=1, labelled_share=1, labels_reach_backbone=reach)
    ours, plain = gradients(small(terms=terms)), gradients(small())
    same = [torch.equal(ours[name], plain[name]) for name in plain if name.startswith("backbone.")]
    assert all(same) != reach
    assert ours["terms.labels.classifier.weight"].abs().max() > 0


def test_labels_have_to_be_there():
    method = SimSiam(TinyBackbone(), SimSiamConfig(dim=12, terms=TermsConfig(labels=1)))
    with pytest.raises(UserError, match=r"simsiam\.terms\.labels learns from labels, and these images have"):
        method.prepare(IMAGES, None)


def test_rotations_turn_row_i_i_times():
    class Corner(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            self.seen = x
            return x.flatten(1)[:, :3]

    term, corner = Rotation(3).double(), Corner()
    x = random_rows(6, 3 * 4).reshape(6, 3, 2, 2)
    loss = term(encoded(backbone=corner, views=[x]))
    turned = np.stack([np.rot90(x[i].numpy(), i, axes=(1, 2)) for i in range(6)])
    assert np.array_equal(corner.seen.numpy(), turned)
    answers = term.classifier(torch.from_numpy(turned).flatten(1)[:, :3]).softmax(dim=1).detach().numpy()
    expected = log_loss([0, 1, 2, 3, 0, 1], answers, labels=[0, 1, 2, 3])
    assert loss.item() == pytest.approx(expected, rel=1e-10)


def test_a_weak_contrast_looks_at_the_middle_ones():
    p, t = ([random_rows(7, 3, seed) for seed in seeds] for seeds in ((1, 2), (3, 4)))
    config = TermsConfig(contrast=1, contrast_margin=0.1, contrast_band=[0.2, 0.7])
    ours = Contrast(config)(encoded(predictions=p, targets=t)).item()
    found = []
    for mine, others in ((p[0], t[1]), (p[1], t[0])):
        q, z = (x.numpy() / np.linalg.norm(x, axis=1, keepdims=True) for x in (mine, others))
        for i in range(7):
            rest = [k for k in range(7) if k != i]
            low, high = np.quantile(z[i] @ z[rest].T, [0.2, 0.7])
            middle = [k for k in rest if low <= z[i] @ z[k] <= high]
            assert 0 < len(middle) < 6
            found.append(np.mean([max(0.0, q[i] @ z[k] - 0.1) for k in middle]))
    assert ours == pytest.approx(np.mean(found), rel=1e-10)


def test_terms_are_added_by_their_weights_and_written_down():
    terms = TermsConfig(rotation=0.5, contrast=2.0, labels=0.25, lr_scale=3.0)
    method = small(terms=terms)
    out = method(VIEWS, torch.arange(8))
    values = {name.removeprefix("simsiam/"): value for name, value in out.numbers.items()}
    assert values.keys() == {"rotation", "contrast", "labels"}
    expected = small()(VIEWS).loss + sum(getattr(terms, name) * value for name, value in values.items())
    torch.testing.assert_close(out.loss, expected)
    group = method.groups()[-1]
    assert (group.name, group.lr_scale, len(group.parameters)) == ("terms", 3.0, 4)


# Two ranks.

EVERYTHING: dict[str, Any] = {
    "targets": {
        "target": TargetConfig(share=0.5, momentum=0.5, memory=0.8, gradient=0.2),
        "clusters": ClusterConfig(share=0.5, count=3),
    },
    "terms": {
        "terms": TermsConfig(labels=1, labelled_share=0.5, rotation=1, contrast=1),
        "distance": DistanceConfig(weights={"cosine": 1, "sliced-wasserstein": 1}, learned=True),
        "predictor_shape": "experts",
    },
    "spread": {"target": TargetConfig(gradient=0.5, spread=[0.0, 0.5])},
}


def trained_on_ranks(runtime: Runtime, name: str) -> Any:
    loss, kept, state = trained(small(**EVERYTHING[name]), runtime, 4)
    return loss, kept, state


@pytest.mark.parametrize("name", ["targets", "terms"])
def test_two_ranks_are_one(name: str):
    alone = trained(small(**EVERYTHING[name]), ALONE, 4)
    if name == "targets":
        assert (alone[2]["clusters.cluster"] >= 0).any()
    for outcome in on_ranks(trained_on_ranks, name):
        assert_same_outcome(outcome, alone, name)


def test_two_ranks_see_one_spread():
    alone = trained(small(**EVERYTHING["spread"]), ALONE, 4)
    for _, _, state in on_ranks(trained_on_ranks, "spread"):
        assert state["target.spread"].item() == pytest.approx(alone[2]["target.spread"].item(), rel=1e-5)


# Bad options.


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"target": TargetConfig(gradient=1.5)}, r"target\.gradient is 1\.5, but must be from 0 to 1"),
        (
            {"target": TargetConfig(spread=[0.9, 0.5])},
            r"target\.spread is \[0\.9, 0\.5\], but must be two rising",
        ),
        ({"target": TargetConfig(spread=[0.5, 0.9])}, r"target\.spread says when .*raise that, or leave"),
        ({"target": TargetConfig(every=0)}, r"target\.every is 0, but must be at least 1"),
        ({"target": TargetConfig(start_epoch=3, stop_epoch=3)}, r"target\.stop_epoch is 3, .* at least 4"),
        ({"distance": DistanceConfig(learned=True)}, r"distance\.learned trains the weights of .*name simil"),
        ({"distance": DistanceConfig(weights={"js": -1})}, r"distance\.weights\.js is -1, .* above 0"),
        ({"clusters": ClusterConfig(share=0.1, count=1)}, r"clusters\.count is 1, but must be at least 2"),
        (
            {"terms": TermsConfig(contrast_band=[0.5])},
            r"terms\.contrast_band is \[0\.5\], but must be two rising",
        ),
        ({"terms": TermsConfig(labelled_share=0)}, r"terms\.labelled_share is 0, but must be above 0"),
        ({"predictor_experts": 1}, r"predictor_experts is 1, but must be at least 2"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: Any, sentence: str):
    with pytest.raises(UserError, match=r"simsiam\." + sentence):
        SimSiamConfig(**options).check(8)


# Whole runs.

REMEMBERING = [
    "--simsiam.target.memory=0.8",
    "--simsiam.target.share=0.5",
    "--simsiam.target.gradient=0.1",
    "--simsiam.target.spread=[0.5, 0.9]",
    "--simsiam.clusters.share=0.5",
    "--simsiam.clusters.count=4",
    "--simsiam.terms.labels=0.1",
    "--simsiam.terms.rotation=0.1",
    "--simsiam.distance.weights={cosine: 1, js: 1}",
    "--simsiam.distance.learned=true",
    "--simsiam.predictor_shape=experts",
    "--optim.lr=0.1",
]


def test_what_a_run_remembers_goes_on_to_the_bit(tmp_path: Path) -> None:
    complete(tmp_path / "whole", *REMEMBERING)
    assert launch(tmp_path / "parts", *REMEMBERING, fault=stop_at(7)).wait() == 143
    complete(tmp_path / "parts", *REMEMBERING, "--resume")
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    state = newest(tmp_path / "whole")["model"]
    assert bool(state["memory.seen"].all())
    assert (state["clusters.cluster"] >= 0).any()
    written = [row for row in rows(tmp_path / "whole") if "loss" in row][-1]
    assert {name for name in written if name.startswith("simsiam/")} == {
        f"simsiam/{name}"
        for name in ("labels", "rotation", "target_gradient", "cluster_agreement", "expert_usage")
    }

    for branch in ("backbone", "target"):
        backbone, read = load_backbone(tmp_path / "whole" / "checkpoint.pth", branch=branch)
        prefix = "" if branch == "backbone" else "target_"
        assert torch.equal(backbone.state_dict()["conv1.weight"], state[f"{prefix}backbone.conv1.weight"])
        projector = read_projector(read)
        assert projector is not None
        assert torch.equal(projector[0].weight, state[f"{prefix}projector.0.weight"])


def test_a_checkpoint_from_before_the_options_goes_on(tmp_path: Path) -> None:
    complete(tmp_path / "whole")
    folder = tmp_path / "run"
    assert launch(folder, fault=stop_at(5)).wait() == 143
    state = newest(folder)
    known = ("dim", "projector_layers", "predictor_hidden", "stop_gradient", "predictor", "predictor_rate")
    known += ("predictor_rate_scale", "batch_norm", "symmetric", "similarity")
    state["config"]["simsiam"] = {key: state["config"]["simsiam"][key] for key in known}
    Checkpoints(folder).save(state, state["progress"]["step"])
    complete(folder, "--resume")
    assert_same_run(tmp_path / "whole", folder)
    assert read_projector(load_backbone(folder / "checkpoint.pth")[1]) is not None


@pytest.mark.parametrize("parts", [2, 4])
def test_parts_of_a_batch_know_their_images(parts: int) -> None:
    method = small(predictor="none", target=TargetConfig(memory=0.5))
    seen: list[Tensor] = []
    forward = method.memory.forward
    method.memory.forward = lambda t, index: (seen.append(index), forward(t, index))[1]  # type: ignore[method-assign]
    optimizer = build_optimizer(OptimConfig(), method.groups())
    index = torch.randperm(8)
    update(
        method, optimizer, ALONE.scaler(), VIEWS, parts, ALONE, None, StepContext(0, 0.1, index),
        info=StepInfo(0, 1, 1),
    )  # fmt: skip
    assert [len(part) for part in seen] == [8 // parts] * parts
    assert torch.equal(torch.cat(seen), index)
