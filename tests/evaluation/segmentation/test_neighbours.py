"""kNN segmentation: votes by hand, the bank, and agreement with the ceiling where the bank is the image."""

import numpy as np
import pytest
import torch

from siamtransfer.evaluation.segmentation.config import SegmentationConfig
from siamtransfer.evaluation.segmentation.neighbours import bank_of, equal_parts, fit_neighbours
from siamtransfer.evaluation.segmentation.probe import Patches
from siamtransfer.evaluation.segmentation.shares import patch_shares
from siamtransfer.utils.errors import UserError

CPU = torch.device("cpu")


def patches_of(features, labels, classes=3, shares=None):
    names = tuple(f"class {c}" for c in range(classes))
    labels = torch.as_tensor(labels)
    return Patches(torch.as_tensor(features).float(), labels, torch.zeros_like(labels), names, shares)


def test_votes_of_two_neighbours_by_hand():
    train = patches_of([[1, 0], [0, 2], [-1, 0]], [0, 1, 2])
    (probe,) = fit_neighbours(train, SegmentationConfig(k=[2], temperature=0.5), CPU)
    scores = probe.scores(torch.tensor([[3.0, 4.0]]))  # cosines 0.6, 0.8 and -0.6
    first, second = np.exp(0.8 / 0.5), np.exp(0.6 / 0.5)
    assert probe.name == "knn/k=2" and probe.outputs == 3 and scores.dtype == torch.float32
    assert scores[0].tolist() == pytest.approx([second / (first + second), first / (first + second), 0.0])
    assert probe.classes_of(np.zeros((3, 3), np.int64)) is None


def test_soft_labels_are_the_mean_of_the_shares():
    shares = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.25, 0.75]])
    train = patches_of([[1, 0], [0, 1]], [0, 2], shares=shares)
    (probe,) = fit_neighbours(train, SegmentationConfig(k=[2]), CPU)
    assert probe.scores(torch.tensor([[1.0, 1.0]]))[0].tolist() == pytest.approx([0.25, 0.375, 0.375])
    assert probe.protocol["labels"] == "shares of the pixels"


def test_every_k_of_one_search_equals_its_own_search():
    random = torch.Generator().manual_seed(0)
    train = patches_of(torch.randn(60, 8, generator=random), torch.arange(60) % 3)
    queries = torch.randn(11, 8, generator=random)
    for probe, k in zip(
        fit_neighbours(train, SegmentationConfig(k=[1, 5, 20]), CPU), (1, 5, 20), strict=True
    ):
        (alone,) = fit_neighbours(train, SegmentationConfig(k=[k]), CPU)
        assert torch.allclose(probe.scores(queries), alone.scores(queries), rtol=0, atol=1e-6)
        assert torch.equal(probe.scores(queries.clone()), probe.scores(queries))


def test_other_queries_are_searched_again():
    train = patches_of([[1, 0], [0, 1]], [0, 1])
    (probe,) = fit_neighbours(train, SegmentationConfig(k=[1]), CPU)
    assert probe.scores(torch.tensor([[1.0, 0.1]])).argmax(dim=1).tolist() == [0]
    assert probe.scores(torch.tensor([[0.1, 1.0]])).argmax(dim=1).tolist() == [1]


def test_hard_labels_are_shares_of_one_class():
    random = torch.Generator().manual_seed(1)
    features, labels = torch.randn(40, 6, generator=random), torch.arange(40) % 3
    queries = torch.randn(9, 6, generator=random)
    shares = torch.nn.functional.one_hot(labels, 3).float()
    config = SegmentationConfig(k=[7])
    (hard,) = fit_neighbours(patches_of(features, labels), config, CPU)
    (soft,) = fit_neighbours(patches_of(features, labels, shares=shares), config, CPU)
    assert torch.allclose(hard.scores(queries), soft.scores(queries), rtol=0, atol=1e-6)


def test_the_image_itself_as_the_bank_gives_the_ceiling_of_its_patches():
    random = np.random.default_rng(2)
    mask = random.integers(0, 3, (12, 16)).astype(np.uint8)
    shares = torch.from_numpy(patch_shares(mask, (3, 4), 3))
    features = torch.randn(12, 5, generator=torch.Generator().manual_seed(2))
    train = patches_of(features, shares.argmax(dim=1), shares=shares)
    (probe,) = fit_neighbours(train, SegmentationConfig(k=[1]), CPU)
    assert torch.equal(probe.scores(features), shares)


def test_equal_parts_by_hand():
    assert equal_parts([10, 2, 10], 12) == [5, 2, 5]
    assert equal_parts([3, 0, 100], 50) == [3, 0, 47]
    assert sum(equal_parts([5, 5, 5], 7)) == 7
    assert equal_parts([1, 2, 3], 6) == [1, 2, 3]


@pytest.mark.parametrize("balanced", [False, True])
def test_a_bank_is_a_part_of_the_patches_and_a_function_of_the_seed(balanced):
    labels = torch.tensor([0] * 80 + [2] * 20)
    train = patches_of(torch.arange(200.0).reshape(100, 2), labels, shares=torch.eye(3)[labels])
    bank = bank_of(train, 30, balanced, seed=3)
    rows = (bank.features[:, 0] / 2).long()
    assert len(rows) == 30 and (rows.diff() > 0).all()
    assert torch.equal(bank.labels, labels[rows])
    assert bank.shares is not None and torch.equal(bank.shares.argmax(dim=1), bank.labels)
    counts = bank.labels.bincount(minlength=3).tolist()
    assert counts == [15, 0, 15] if balanced else counts != [15, 0, 15]
    assert torch.equal(bank_of(train, 30, balanced, seed=3).features, bank.features)
    assert not torch.equal(bank_of(train, 30, balanced, seed=4).features, bank.features)


def test_a_bank_without_a_size():
    train = patches_of(torch.randn(10, 2), [0] * 7 + [1] * 3)
    assert bank_of(train, None, False, 0) is train
    assert bank_of(train, 10, False, 0) is train
    assert bank_of(train, None, True, 0).labels.bincount().tolist() == [3, 3]


@pytest.mark.parametrize("balanced", [False, True])
def test_a_bank_larger_than_the_patches_is_refused(balanced):
    train = patches_of(torch.randn(10, 2), [0] * 7 + [1] * 3)
    assert len(bank_of(train, 10, balanced, 0).labels) == 10
    with pytest.raises(UserError, match=r"--bank 11 is more than the 10 patches"):
        bank_of(train, 11, balanced, 0)


def test_a_bank_smaller_than_k_is_refused():
    train = patches_of(torch.randn(10, 2), [0] * 10)
    with pytest.raises(UserError, match=r"--k 30 is more than the 10 patches"):
        fit_neighbours(train, SegmentationConfig(), CPU)
