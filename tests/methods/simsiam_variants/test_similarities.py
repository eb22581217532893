"""Similarities of simsiam-variants against public libraries and their formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import special, stats
from scipy.spatial.distance import jensenshannon
from support.small_simsiam import random_rows, small_variant

from siamtransfer.methods.simsiam_variants.similarities import Distance, DistanceConfig, SimilarityName


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
    method = small_variant(distance=DistanceConfig(weights={"cosine": 1, "js": 1}, learned=True))
    groups = {group.name: group.parameters for group in method.groups()}
    assert [p is method.distance.log_weights for p in groups["weights of similarities"]] == [True]
    assert not list(small_variant().distance.parameters())
