"""k-means segmentation: matching by hand, invariances, and features that are perfect."""

from itertools import permutations

import numpy as np
import pytest
import torch

from siamtransfer.evaluation.segmentation.clusters import fit_clusters, match_clusters
from siamtransfer.evaluation.segmentation.config import SegmentationConfig
from siamtransfer.evaluation.segmentation.probe import Patches
from siamtransfer.metrics.segmentation import SegmentationScores
from siamtransfer.utils.errors import UserError

CPU = torch.device("cpu")


def patches_of(features, labels, classes):
    names = tuple(f"class {c}" for c in range(classes))
    return Patches(features, labels, torch.zeros_like(labels), names)


def around(labels, spread, seed=0, dim=8):
    """Rows near a vector for each label."""
    random = torch.Generator().manual_seed(seed)
    vectors = 5 * torch.eye(dim)
    return vectors[labels] + spread * torch.randn(len(labels), dim, generator=random)


def counts_of(truth, outputs, shape):
    counts = np.zeros(shape, np.int64)
    np.add.at(counts, (truth, outputs), 1)
    return counts


def matched(counts, classes_of):
    """Counts int64[C, C] after the clusters have their classes."""
    result = np.zeros((len(counts), len(counts)), np.int64)
    np.add.at(result.T, classes_of, counts.T)
    return result


@pytest.mark.parametrize("clustering", ["lloyd", "minibatch"])
def test_features_that_are_perfect_give_an_miou_of_one(clustering):
    labels = torch.arange(300) % 4
    train = patches_of(around(labels, 0.05), labels, 4)
    (probe,) = fit_clusters(train, SegmentationConfig(clustering=clustering), CPU)
    test_labels = torch.arange(90) % 4
    scores = probe.scores(around(test_labels, 0.05, seed=1))
    assert probe.name == "kmeans" and scores.shape == (90, 4) and scores.dtype == torch.float32
    counts = counts_of(test_labels.numpy(), scores.argmax(dim=1).numpy(), (4, 4))
    classes_of = probe.classes_of(counts)
    assert classes_of is not None
    assert sorted(classes_of.tolist()) == [0, 1, 2, 3]
    assert SegmentationScores.from_counts(matched(counts, classes_of)).miou == 1.0


def test_labels_are_not_used_and_their_order_does_not_matter():
    labels = torch.randint(5, (200,), generator=torch.Generator().manual_seed(3))
    features = around(labels, 2.0)
    new_names = torch.tensor([3, 0, 4, 1, 2])
    mious, scores = [], []
    for given in (labels, new_names[labels], torch.zeros_like(labels)):
        (probe,) = fit_clusters(patches_of(features, given, 5), SegmentationConfig(restarts=2), CPU)
        scores.append(probe.scores(features))
        counts = counts_of(given.numpy(), scores[-1].argmax(dim=1).numpy(), (5, 5))
        mious.append(SegmentationScores.from_counts(matched(counts, probe.classes_of(counts))).miou)
    assert torch.equal(scores[0], scores[1]) and torch.equal(scores[0], scores[2])
    assert mious[0] == pytest.approx(mious[1], abs=1e-12)
    assert 0.2 < mious[0] < 1


def test_scores_are_minus_squared_distances_of_unit_rows():
    labels = torch.arange(60) % 3
    rows = around(labels, 0.3)
    (probe,) = fit_clusters(patches_of(rows, labels, 3), SegmentationConfig(), CPU)
    z, queries = (torch.nn.functional.normalize(x, dim=1) for x in (rows, around(labels, 1.0, seed=5)))
    centres = torch.stack([z[labels == c].mean(dim=0) for c in range(3)])  # far apart, so clusters are labels
    distances, _ = (1 - probe.scores(7 * queries)).sort(dim=1)  # the length of a row does not matter
    expected, _ = (torch.cdist(queries, centres) ** 2).sort(dim=1)
    assert torch.allclose(distances, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("matching", ["pixels", "iou"])
def test_the_matching_is_the_best_of_all_permutations(matching):
    random = np.random.default_rng(4)
    for _ in range(20):
        counts = random.integers(0, 50, (4, 4))

        def value(order, counts=counts):
            table = counts[:, list(order)]  # cluster order[c] gets class c
            right = np.diagonal(table)
            return (
                right.sum() if matching == "pixels" else (right / (table.sum(0) + table.sum(1) - right)).sum()
            )

        best = max(value(order) for order in permutations(range(4)))
        classes_of = match_clusters(counts, matching)
        assert value(np.argsort(classes_of)) == pytest.approx(best, rel=1e-12)


def test_the_two_matchings_differ_where_a_large_class_is_in_both_clusters():
    counts = np.array([[50, 60], [0, 5]])
    assert match_clusters(counts, "pixels").tolist() == [1, 0]  # 60 pixels against 55
    assert match_clusters(counts, "iou").tolist() == [0, 1]  # 50/110 + 5/65 against 60/115


def test_more_clusters_than_classes_take_the_class_of_most_of_their_pixels():
    counts = np.array([[9, 0, 1, 0], [1, 5, 8, 0]])
    assert match_clusters(counts).tolist() == [0, 1, 1, 0]
    labels = torch.arange(120) % 2
    train = patches_of(around(labels, 0.5), labels, 2)
    (probe,) = fit_clusters(train, SegmentationConfig(clusters=6, restarts=1), CPU)
    assert probe.name == "kmeans/clusters=6" and probe.outputs == 6
    assert probe.protocol["matching"].startswith("many to one")


def test_fewer_clusters_than_classes_leave_classes_without_one():
    counts = np.array([[1, 0], [0, 7], [9, 1]])
    assert match_clusters(counts).tolist() == [2, 1]


def test_the_seed_decides_and_repeats():
    labels = torch.arange(150) % 5
    train = patches_of(around(labels, 3.0), labels, 5)

    def scores(seed):
        (probe,) = fit_clusters(train, SegmentationConfig(restarts=1, seed=seed), CPU)
        return probe.scores(train.features)

    assert torch.equal(scores(0), scores(0))
    assert not torch.equal(scores(0), scores(1))


def test_fewer_patches_than_clusters_are_refused():
    train = patches_of(torch.randn(3, 8), torch.zeros(3, dtype=torch.int64), 4)
    with pytest.raises(UserError, match=r"3 patches cannot make 4 clusters"):
        fit_clusters(train, SegmentationConfig(), CPU)
