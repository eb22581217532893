"""Masks by mass and the Jaccard index: hand cases, the published measurement in slow loops, invariances."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from siamtransfer.evaluation.attention.jaccard import (
    ImageJaccard,
    JaccardScores,
    enlarge,
    head_masks,
    jaccard,
    keep_mass,
)


@pytest.mark.parametrize(
    ("mass", "kept"),
    [
        (0.4, [False, True, False, False]),
        (0.6, [False, True, True, False]),
        (0.85, [True, True, True, False]),
        (1.0, [True, True, True, True]),
    ],
)
def test_the_largest_patches_hold_the_mass(mass: float, kept: list[bool]) -> None:
    assert keep_mass(torch.tensor([0.15, 0.5, 0.25, 0.1]), mass).tolist() == kept


def test_mass_is_relative_and_follows_its_patches() -> None:
    attention = torch.rand(3, 50)
    order = torch.randperm(50)
    kept = keep_mass(attention, 0.6)
    assert torch.equal(keep_mass(attention * 0.125, 0.6), kept)
    assert torch.equal(keep_mass(attention[:, order], 0.6), kept[:, order])
    held = (attention * kept).sum(dim=1) / attention.sum(dim=1)
    smallest = torch.where(kept, attention, torch.inf).amin(dim=1) / attention.sum(dim=1)
    assert bool((held >= 0.6).all())
    assert bool((held - smallest < 0.6).all()), "without its smallest patch a mask holds less than the mass"


def test_attention_of_zeros_keeps_nothing() -> None:
    assert not keep_mass(torch.zeros(4), 0.6).any()


def test_the_last_mask_is_that_of_the_mean_in_which_heads_count_alike() -> None:
    attention = torch.tensor([[[0.8, 0.1, 0.1]], [[0.0, 0.001, 0.009]]])  # the second gives little to patches
    masks = head_masks(attention, 0.6)
    assert masks.shape == (3, 1, 3)
    # shares .8 .1 .1 and 0 .1 .9: their mean is .4 .1 .5
    assert masks[:, 0].tolist() == [[True, False, False], [False, False, True], [True, False, True]]


def test_a_pixel_takes_the_value_of_the_patch_of_its_centre() -> None:
    masks = np.arange(6).reshape(2, 3)
    assert np.array_equal(enlarge(masks, 4, 6), masks.repeat(2, 0).repeat(2, 1))
    assert enlarge(masks, 3, 3).tolist() == [[0, 1, 2], [3, 4, 5], [3, 4, 5]]
    assert np.array_equal(enlarge(masks, 1, 3), masks[1:])


TRUTH = np.array([[0, 0, 1, 1], [0, 2, 255, 1]])
MASKS = np.array(
    [
        [[0, 0, 1, 1], [0, 0, 0, 0]],  # two of class 1's three pixels
        [[1, 0, 0, 0], [0, 1, 1, 0]],  # class 2, a pixel of the background, an ignored one
    ],
    bool,
)


def test_two_masks_and_two_objects_by_hand() -> None:
    published = jaccard(MASKS, TRUTH, 255, 0, "background")
    assert published.objects.tolist() == [[2 / 3, 0], [0, 1 / 3]]
    assert published.foreground is not None
    assert published.foreground.tolist() == [2 / 4, 1 / 6]
    assert published.whole == 4 / 8
    without = jaccard(MASKS, TRUTH, 255, 0, "left-out")
    assert without.objects.tolist() == [[2 / 3, 0], [0, 1 / 2]]
    assert without.foreground is not None
    assert without.foreground.tolist() == [2 / 4, 1 / 5]
    assert without.whole == 4 / 7


def test_it_is_the_published_loop_on_random_masks() -> None:
    draw = np.random.default_rng(0)
    for _ in range(5):
        truth = draw.choice([0, 1, 4, 7, 255], size=(9, 7))
        masks = draw.random((4, 9, 7)) < 0.4
        expected = []
        for value in sorted(set(truth.ravel().tolist()) - {0, 255}):
            of_object = []
            for mask in masks:
                pairs = list(zip(mask.ravel(), (truth == value).ravel(), strict=True))
                union = sum(bool(a or b) for a, b in pairs)
                of_object.append(sum(bool(a and b) for a, b in pairs) / union)
            expected.append(of_object)
        found = jaccard(masks, truth, 255, 0, "background")
        assert np.allclose(found.objects, np.array(expected).T, atol=1e-15)


def test_names_of_classes_and_the_size_of_a_pixel_do_not_matter() -> None:
    draw = np.random.default_rng(1)
    truth, masks = draw.integers(0, 4, (8, 8)), draw.random((3, 8, 8)) < 0.5
    found = jaccard(masks, truth, 255, 0, "background")
    renamed = jaccard(masks, np.array([0, 9, 5, 7])[truth], 255, 0, "background")
    assert np.array_equal(renamed.objects, found.objects[:, [1, 2, 0]])
    assert np.array_equal(renamed.foreground, found.foreground)
    larger = jaccard(enlarge(masks, 24, 24), enlarge(truth, 24, 24), 255, 0, "background")
    assert np.array_equal(larger.objects, found.objects)


def test_a_set_without_background_has_objects_alone() -> None:
    found = jaccard(MASKS, TRUTH, 255, None, "background")
    assert found.objects.shape == (2, 3)
    scores = JaccardScores(has_background=False)
    scores.add(0, found)
    assert set(scores.metrics()) == {"jaccard/best-head-of-object"}
    assert scores.best_head is None


def test_the_numbers_of_a_set_by_hand() -> None:
    scores = JaccardScores(has_background=True)
    # two heads and their mean; two objects, then one, then none
    scores.add(3, ImageJaccard(np.array([[0.8, 0.1], [0.2, 0.3], [1, 1]]), np.array([0.5, 0.2, 0.4]), 0.3))
    scores.add(5, ImageJaccard(np.array([[0.1], [0.4], [1]]), np.array([0.1, 0.35, 0.2]), 0.1))
    scores.add(6, ImageJaccard(np.zeros((3, 0)), None))
    found = scores.metrics()
    expected = {
        "jaccard/best-head-of-object": 100 * ((0.8 + 0.3) / 2 + 0.4) / 2,
        "jaccard/foreground/best-head-of-image": 42.5,
        "jaccard/foreground/best-head-of-set": 30.0,
        "jaccard/foreground/best-head-of-set/head": 1.0,
        "jaccard/foreground/mean-of-heads": 30.0,
        "jaccard/foreground/whole-image": 20.0,
        "jaccard/foreground/head=1": 30.0,
        "jaccard/foreground/head=2": 27.5,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert (scores.empty, scores.objects, scores.images) == (1, 3, [3, 5])
    assert found["jaccard/foreground/best-head-of-image/ci95"] == pytest.approx(12.706 * 7.5, rel=1e-3)
    assert JaccardScores(has_background=True).metrics() == {}
