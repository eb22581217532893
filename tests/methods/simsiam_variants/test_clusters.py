"""Clusters of simsiam-variants: who is the partner of whom, how often, and when clusters are computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.cluster import DBSCAN
from support.small_simsiam import VIEWS, random_rows, small_variant

from siamtransfer.methods import StepInfo
from siamtransfer.methods.simsiam_variants.clusters import ClusterConfig, PseudoLabels, dense_clusters
from siamtransfer.utils.errors import UserError


def with_clusters(labels: list[int], **options: Any) -> PseudoLabels:
    clusters = PseudoLabels(len(labels), 2, ClusterConfig(**{"fraction": 1.0, **options}))
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


def test_partners_replace_their_fraction_of_targets():
    clusters = with_clusters([0] * 8, fraction=0.25)
    index, own = torch.arange(8), torch.arange(8)
    replaced = torch.stack([clusters.partners(index) != own for _ in range(500)]).double().mean()
    assert replaced.item() == pytest.approx(0.25, abs=0.03)
    targets = [random_rows(8, 3, seed) for seed in (1, 2)]
    torch.manual_seed(3)
    chosen = clusters.partners(index)
    torch.manual_seed(3)
    ours = clusters(targets, random_rows(8, 2), index)
    assert all(torch.equal(t, target[chosen]) for t, target in zip(ours, targets, strict=True))
    assert torch.equal(with_clusters([0] * 8, fraction=0.0).partners(index), own)


def test_rounds_of_k_means_find_the_groups_and_tell_whether_they_last():
    clusters = PseudoLabels(12, 2, ClusterConfig(fraction=1, count=3, every=2))
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
    plain, ours = small_variant(), small_variant(clusters=ClusterConfig(fraction=1.0))
    assert plain(VIEWS).loss == ours(VIEWS, torch.arange(8)).loss


def test_dense_places_are_clusters_and_sparse_images_have_none():
    # Distances to the second neighbour: 1/4, 1/8, 1/4 | 1/2, 1/4, 1/2 | 4.75.
    line = np.array([0, 0.125, 0.25, 5, 5.25, 5.5, 10])[:, None]
    assert dense_clusters(line, 2, 5 / 6).tolist() == [0, 0, 0, 1, 1, 1, -1]
    # A radius of 1/4 makes 4 of 7 dense: all of the first three, and the middle of the others.
    assert dense_clusters(line, 2, 0.5).tolist() == [0, 0, 0, 1, 1, 1, -1]
    assert dense_clusters(line, 2, 0.01).tolist() == [0, 0, 0, -1, -1, -1, -1]
    assert dense_clusters(line, 2, 1.0).tolist() == [0] * 7
    assert dense_clusters(line[:2], 2, 0.5).tolist() == [-1, -1]
    assert dense_clusters(np.ones((4, 2)), 2, 0.5).tolist() == [0] * 4


@pytest.mark.parametrize("dense", [0.2, 0.6])
def test_the_radius_makes_the_asked_fraction_dense(dense: float):
    rows = random_rows(200, 5).numpy()
    distances = np.sort(np.linalg.norm(rows[:, None] - rows[None], axis=2), axis=1)[:, 3]
    radius = np.quantile(distances, dense)
    ours = dense_clusters(rows, 3, dense)
    theirs = DBSCAN(eps=radius, min_samples=4).fit(rows)
    assert len(theirs.core_sample_indices_) == pytest.approx(200 * dense, abs=1)
    assert np.array_equal(ours, theirs.labels_)


def test_images_without_a_cluster_keep_their_targets():
    clusters = PseudoLabels(
        7, 2, ClusterConfig(fraction=1, kind="dbscan", neighbours=2, dense=0.8, every=1)
    ).double()
    angle = torch.tensor([0.0, 0.01, 0.02, 1.0, 1.01, 1.02, 3.0], dtype=torch.float64)
    clusters([], torch.stack([angle.cos(), angle.sin()], dim=1), torch.arange(7))
    clusters.before_forward(StepInfo(10, 100, 10))
    assert clusters.cluster.tolist() == [0, 0, 0, 1, 1, 1, -1]
    assert {name: n.item() for name, n in clusters.numbers().items()} == {
        "cluster_agreement": 0,
        "cluster_count": 2,
        "cluster_none": pytest.approx(1 / 7),
    }
    drawn = torch.stack([clusters.partners(torch.arange(7)) for _ in range(50)])
    assert (drawn[:, 6] == 6).all()
    assert (drawn[:, :6] != torch.arange(6)).all()
    clusters.before_forward(StepInfo(20, 100, 10))
    assert clusters.agreement == pytest.approx(1)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"fraction": 1, "neighbours": 3},
            r"neighbours belongs to dbscan, and .* is k-means: set that to d",
        ),
        ({"fraction": 1, "kind": "dbscan", "count": 7}, r"count belongs to k-means, and .* is dbscan: set "),
        ({"kind": "dbscan"}, r"kind dbscan changes nothing while .*fraction is 0: raise that, or leave kind"),
        ({"fraction": 1, "kind": "dbscan", "dense": 0}, r"dense is 0, but must be above 0"),
        ({"fraction": 1, "kind": "dbscan", "dense": 1.5}, r"dense is 1\.5, but must be from 0 to 1"),
        ({"fraction": 1, "kind": "dbscan", "neighbours": 0}, r"neighbours is 0, but must be at least 1"),
    ],
)
def test_clusters_that_mean_nothing_are_refused(options: Any, sentence: str):
    with pytest.raises(UserError, match=r"simsiam_variants\.clusters\." + sentence):
        ClusterConfig(**options).check()
