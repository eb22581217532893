"""Drawing: a pure function of (seed, epoch, index, view), distributed as torchvision's transforms."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision import transforms

from siamtransfer.views import random_params as module
from siamtransfer.views.random_params import (
    COLUMNS,
    NEVER,
    SLOTS,
    TRIES,
    Column,
    Grey,
    Operation,
    Slot,
    sample_params,
    uniforms,
)
from siamtransfer.views.recipes import recipe
from siamtransfer.views.view_spec import Recipe, ViewSpec

N = 4000
SIGNIFICANT = 1e-3  # seeds are fixed, so a test either always passes or always fails
INDICES = np.arange(N)


def one_view(**changes: object) -> Recipe:
    base = recipe("simsiam")
    return dataclasses.replace(base, views=(dataclasses.replace(base.views[0], **changes),))  # type: ignore[arg-type]


def sizes(height: int, width: int, count: int = N) -> np.ndarray:
    return np.tile(np.array([[height, width]]), (count, 1))


def test_the_mixer_is_splitmix64() -> None:
    """The first outputs for seed 1234567 are the test vector in common use."""
    with np.errstate(over="ignore"):
        outputs = module._absorb(np.array([1234567], np.uint64), np.arange(3, dtype=np.uint64))
    assert outputs.tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_the_numbers_stay_the_same_from_release_to_release() -> None:
    """Otherwise a run resumed after an update would see other views."""
    bits = (uniforms(7, 3, np.array([0, 1, 50_000]), 2) * 2.0**53).astype(np.uint64)
    digest = hashlib.sha256(bits.astype("<u8").tobytes()).hexdigest()
    assert bits.shape == (3, 2, SLOTS)
    assert digest == "d979581db06821e0d74aa6a28bb3a840ca4298f6fd633c925e89981e728bd52f"


def test_a_sample_does_not_depend_on_its_batch() -> None:
    views = recipe("dino", size=64)
    shapes = np.random.default_rng(0).integers(1, 500, (50, 2))
    together = sample_params(views, 5, 2, INDICES[:50], shapes)
    shuffled = np.random.default_rng(1).permutation(50)
    apart = sample_params(views, 5, 2, INDICES[:50][shuffled], shapes[shuffled])
    alone = sample_params(views, 5, np.array([2]), INDICES[17:18], shapes[17:18])
    for field in ("box", "flip", "augmentation"):
        all_of_them = getattr(together, field)
        assert np.array_equal(all_of_them[shuffled], getattr(apart, field))
        assert np.array_equal(all_of_them[17:18], getattr(alone, field))


def test_epochs_may_differ_within_a_batch() -> None:
    views = recipe("simsiam")
    mixed = sample_params(views, 0, np.array([4, 9]), np.array([3, 3]), sizes(30, 40, 2))
    for row, epoch in enumerate((4, 9)):
        assert np.array_equal(
            mixed.augmentation[row],
            sample_params(views, 0, epoch, np.array([3]), sizes(30, 40, 1)).augmentation[0],
        )


def test_the_first_views_do_not_depend_on_the_number_of_views() -> None:
    swav = recipe("swav")
    pair = dataclasses.replace(swav, views=swav.views[:2])
    many, few = (sample_params(one, 1, 0, INDICES[:99], sizes(60, 80, 99)) for one in (swav, pair))
    for field in ("box", "flip", "augmentation"):
        assert np.array_equal(getattr(many, field)[:, :2], getattr(few, field))


def test_only_boxes_depend_on_the_image_size() -> None:
    small, large = (
        sample_params(recipe("byol"), 1, 0, INDICES[:9], sizes(*s, 9)) for s in ((9, 5), (800, 600))
    )
    assert np.array_equal(small.augmentation, large.augmentation)
    assert np.array_equal(small.flip, large.flip)
    assert not np.array_equal(small.box, large.box)


@pytest.mark.parametrize("other", [{"seed": 1}, {"epochs": 1}, {"indices": INDICES + N}, {"view": 1}])
def test_seeds_epochs_samples_and_views_are_unrelated(other: dict) -> None:
    arguments = {"seed": 0, "epochs": 0, "indices": INDICES, "view": 0} | other
    view = arguments.pop("view")
    first = uniforms(0, 0, INDICES, 2)[:, 0]
    second = uniforms(**arguments, views=2)[:, view]
    correlation = np.corrcoef(first.T, second.T)[:SLOTS, SLOTS:]
    assert np.abs(correlation).max() < 5 / math.sqrt(N)
    assert not np.isin(first, second).any()


def test_slots_are_uniform_and_unrelated() -> None:
    first = uniforms(3, 1, INDICES, 1)[:, 0]
    assert first.min() >= 0
    assert first.max() < 1
    assert all(stats.kstest(column, "uniform").pvalue > SIGNIFICANT / SLOTS for column in first.T)
    assert np.abs(np.corrcoef(first.T) - np.eye(SLOTS)).max() < 5 / math.sqrt(N)


def test_negative_and_huge_seeds_and_indices_are_fine() -> None:
    assert (
        np.unique(
            [uniforms(seed, 0, np.array([2**62]), 1)[0, 0, 0] for seed in (-1, 0, 2**64 - 2, 2**70 + 5)]
        ).size
        == 4
    )


# Crops.


def crop_by_hand(spec: ViewSpec, u: np.ndarray, height: int, width: int) -> list[int]:
    """The algorithm of RandomResizedCrop, one image at a time."""
    for attempt in range(TRIES):
        area = height * width * (spec.scale[0] + (spec.scale[1] - spec.scale[0]) * u[Slot.AREA + attempt])
        low, high = (math.log(side) for side in spec.ratio)
        ratio = math.exp(low + (high - low) * u[Slot.RATIO + attempt])
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return [int(u[Slot.TOP] * (height - h + 1)), int(u[Slot.LEFT] * (width - w + 1)), h, w]
    if width / height < spec.ratio[0]:
        w, h = width, round(width / spec.ratio[0])
    elif width / height > spec.ratio[1]:
        w, h = round(height * spec.ratio[1]), height
    else:
        w, h = width, height
    return [(height - h) // 2, (width - w) // 2, h, w]


@pytest.mark.parametrize(
    "shape", [(375, 500), (32, 32), (1, 1), (1, 2), (2, 1), (3, 2), (1, 1000), (700, 3), (5, 7), (40, 300)]
)
def test_boxes_equal_the_algorithm_done_by_hand_and_lie_in_the_image(shape: tuple[int, int]) -> None:
    for spec in (recipe("simsiam").views[0], recipe("swav").views[-1]):
        views = dataclasses.replace(recipe("simsiam"), views=(spec,))
        boxes = sample_params(views, 11, 0, INDICES[:300], sizes(*shape, 300)).box[:, 0]
        u = uniforms(11, 0, INDICES[:300], 1)[:, 0]
        assert boxes.tolist() == [crop_by_hand(spec, row, *shape) for row in u]
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 2:] >= 1).all()
        assert (boxes[:, :2] + boxes[:, 2:] <= shape).all()


@pytest.mark.parametrize(
    ("shape", "scale"), [((375, 500), (0.2, 1.0)), ((300, 300), (0.08, 1.0)), ((100, 180), (0.6, 1.0))]
)
def test_boxes_are_distributed_as_torchvisions(shape: tuple[int, int], scale: tuple[float, float]) -> None:
    height, width = shape
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    theirs = np.array(
        [transforms.RandomResizedCrop.get_params(image, list(scale), [3 / 4, 4 / 3]) for _ in range(N)]
    )
    ours = sample_params(one_view(scale=scale), 0, 0, INDICES, sizes(height, width)).box[:, 0]
    for what in (
        lambda box: box[:, 2] * box[:, 3],
        lambda box: box[:, 3] / box[:, 2],
        lambda box: box[:, 0],
        lambda box: box[:, 1],
        lambda box: box[:, 0] + box[:, 2],
    ):
        assert stats.ks_2samp(what(ours), what(theirs)).pvalue > SIGNIFICANT


# Colours.


def augmentation_of(spec: ViewSpec, seed: int = 0) -> np.ndarray:
    views = dataclasses.replace(recipe("simsiam"), views=(spec,))
    return sample_params(views, seed, 0, INDICES, sizes(8, 8)).augmentation[:, 0]


def test_jitter_is_distributed_as_torchvisions() -> None:
    strengths = (0.8, 1.4, 0.3, 0.2)  # a contrast beyond 1 is cut off at factor 0
    augmentation = augmentation_of(ViewSpec(8, jitter=strengths, jitter_p=1.0))
    jitter = transforms.ColorJitter(*strengths)
    torch.manual_seed(0)
    drawn = [
        transforms.ColorJitter.get_params(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
        for _ in range(N)
    ]
    for operation in Operation:
        theirs = [parameters[1 + operation] for parameters in drawn]
        ours = augmentation[:, Column.STRENGTH + operation]
        assert stats.ks_2samp(ours, theirs).pvalue > SIGNIFICANT
    orders = [tuple(row) for row in augmentation[:, Column.ORDER : Column.ORDER + 4].astype(int)]
    counts = [orders.count(order) for order in itertools.permutations(range(4))]
    assert sum(counts) == N
    assert stats.chisquare(counts).pvalue > SIGNIFICANT


def test_probabilities_are_those_of_the_recipe() -> None:
    spec = ViewSpec(
        8, jitter=(0.4, 0.4, 0.4, 0.1), jitter_p=0.8, grey_p=0.3, blur_p=0.6, solarize_p=0.1, flip_p=0.25
    )
    views = dataclasses.replace(recipe("simsiam"), views=(spec,))
    drawn = sample_params(views, 0, 0, INDICES, sizes(8, 8))
    augmentation = drawn.augmentation[:, 0]
    for happened, probability in (
        (augmentation[:, Column.ORDER] >= 0, 0.8),
        (augmentation[:, Column.GREY] > 0, 0.3),
        (augmentation[:, Column.SIGMA] > 0, 0.6),
        (augmentation[:, Column.SOLARIZE] < NEVER, 0.1),
        (drawn.flip[:, 0], 0.25),
    ):
        assert stats.binomtest(int(happened.sum()), N, probability).pvalue > SIGNIFICANT
    jittered = (augmentation[:, Column.ORDER : Column.ORDER + 4] >= 0).sum(axis=1)
    assert set(jittered.tolist()) == {0, 4}


def test_what_happens_to_a_view_is_unrelated_to_what_else_happens() -> None:
    half = {"jitter_p": 0.5, "grey_p": 0.5, "blur_p": 0.5, "solarize_p": 0.5}
    views = one_view(
        scale=(0.1, 0.4), **half
    )  # so small that every first try fits: no dependence by rejection
    drawn = sample_params(views, 0, 0, INDICES, sizes(600, 600))
    augmentation = drawn.augmentation[:, 0]
    blurred = augmentation[:, Column.SIGMA] > 0
    columns = [drawn.flip[:, 0], augmentation[:, Column.ORDER] >= 0, augmentation[:, Column.GREY], blurred]
    columns += [augmentation[:, Column.SOLARIZE], *augmentation[:, Column.STRENGTH : Column.STRENGTH + 4].T]
    columns += [drawn.box[:, 0, 2] * drawn.box[:, 0, 3], drawn.box[:, 0, 3] / drawn.box[:, 0, 2]]
    assert np.abs(np.corrcoef(np.stack(columns)) - np.eye(len(columns))).max() < 5 / math.sqrt(N)
    sigmas = np.stack([*columns[:3], augmentation[:, Column.SIGMA]])[:, blurred]
    assert np.abs(np.corrcoef(sigmas) - np.eye(4)).max() < 5 / math.sqrt(blurred.sum())


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_never_and_always(probability: float) -> None:
    spec = ViewSpec(
        8, jitter=(0.4, 0.4, 0.4, 0.1), jitter_p=probability, grey_p=probability, blur_p=probability,
        solarize_p=probability, flip_p=probability,
    )  # fmt: skip
    views = dataclasses.replace(recipe("simsiam"), views=(spec,))
    drawn = sample_params(views, 0, 0, INDICES, sizes(8, 8))
    augmentation = drawn.augmentation[:, 0]
    assert augmentation.shape == (N, COLUMNS)
    assert ((augmentation[:, Column.ORDER : Column.ORDER + 4] >= 0) == bool(probability)).all()
    assert ((augmentation[:, Column.GREY] == Grey.AFTER_JITTER) == bool(probability)).all()
    assert ((augmentation[:, Column.SIGMA] > 0) == bool(probability)).all()
    assert ((augmentation[:, Column.SOLARIZE] < 1) == bool(probability)).all()
    assert (drawn.flip == bool(probability)).all()


def test_blur_sigma_is_distributed_as_torchvisions() -> None:
    sigma = augmentation_of(ViewSpec(8, blur_p=1.0, blur_sigma=(0.1, 2.0)))[:, Column.SIGMA]
    torch.manual_seed(0)
    theirs = [transforms.GaussianBlur.get_params(0.1, 2.0) for _ in range(N)]
    assert stats.ks_2samp(sigma, theirs).pvalue > SIGNIFICANT


def test_operations_without_strength_have_no_place_in_the_order() -> None:
    augmentation = augmentation_of(recipe("grey").views[0])
    order = augmentation[:, Column.ORDER : Column.ORDER + 4]
    assert set(np.unique(order)) == {-1, Operation.BRIGHTNESS, Operation.CONTRAST}
    assert (augmentation[:, Column.GREY] == Grey.NO).all()


def test_grey_comes_first_in_moco_v1_and_solarize_starts_between_two_grey_levels() -> None:
    assert set(np.unique(augmentation_of(recipe("moco-v1").views[0])[:, Column.GREY])) == {
        0,
        Grey.BEFORE_JITTER,
    }
    thresholds = np.unique(augmentation_of(recipe("byol").views[1])[:, Column.SOLARIZE])
    assert thresholds.tolist() == [0.5, NEVER]
