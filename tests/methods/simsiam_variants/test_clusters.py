"""Clusters of simsiam-variants: who is the partner of whom, how often, and when clusters are computed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy import stats
from support.small_simsiam import VIEWS, random_rows, small_variant

from siamtransfer.methods import StepInfo
from siamtransfer.methods.simsiam_variants.clusters import ClusterConfig, PseudoLabels


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
