"""The order of images: every one once an epoch, any step can be the first, any number of ranks agrees."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siamtransfer.views.sampler import StepSampler, epoch_order


@pytest.mark.parametrize(("images", "batch"), [(12, 4), (13, 4), (5, 5), (9, 2)])
def test_an_epoch_holds_each_image_at_most_once_and_leaves_out_the_incomplete_batch(
    images: int, batch: int
) -> None:
    per_epoch = images // batch
    steps = list(StepSampler(images, batch, 3 * per_epoch, seed=0))
    assert [len(step) for step in steps] == [batch] * (3 * per_epoch)
    for epoch in range(3):
        sample_keys = [
            sample_key for step in steps[epoch * per_epoch : (epoch + 1) * per_epoch] for sample_key in step
        ]
        assert {e for e, _ in sample_keys} == {epoch}
        indices = [index for _, index in sample_keys]
        assert len(set(indices)) == len(indices) == per_epoch * batch
        assert set(indices) <= set(range(images))


def test_images_left_out_of_one_epoch_come_in_others() -> None:
    seen = {index for step in StepSampler(13, 4, 60, seed=0) for _, index in step}
    assert seen == set(range(13))


@given(start=st.integers(0, 30), seed=st.integers(0, 2**40))
def test_any_step_can_be_the_first(start: int, seed: int) -> None:
    whole = list(StepSampler(10, 3, 30, seed=seed))
    rest = StepSampler(10, 3, 30, seed=seed, start=start)
    assert list(rest) == whole[start:]
    assert len(rest) == 30 - start


@given(world_size=st.sampled_from([1, 2, 3, 4, 6, 12]), seed=st.integers(0, 1000))
def test_ranks_share_each_global_batch_in_order(world_size: int, seed: int) -> None:
    whole = list(StepSampler(40, 12, 9, seed=seed))
    ranks = [
        list(StepSampler(40, 12, 9, seed=seed, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    for step, batch in enumerate(whole):
        parts = [rank[step] for rank in ranks]
        assert {len(part) for part in parts} == {12 // world_size}
        assert [sample_key for part in parts for sample_key in part] == batch


def test_orders_differ_between_epochs_and_seeds_and_are_the_same_each_time() -> None:
    orders = {
        (seed, epoch): tuple(epoch_order(100, seed, epoch)) for seed in (0, 1, 2) for epoch in (0, 1, 2)
    }
    assert len(set(orders.values())) == 9, "seed 1 epoch 0 is not seed 0 epoch 1"
    epoch_order.cache_clear()
    assert all(tuple(epoch_order(100, *key)) == order for key, order in orders.items())


def test_every_place_is_equally_likely() -> None:
    """Where image 0 stands in 4000 orders of 8 images: a chi-square of 7 degrees, below its 0.1 % bound."""
    places = [int(np.argmin(epoch_order(8, 3, epoch))) for epoch in range(4000)]
    counts = np.bincount(places, minlength=8)
    assert ((counts - 500) ** 2 / 500).sum() < 24.3


def test_workers_can_be_sent_tickets() -> None:
    epoch, index = next(iter(StepSampler(4, 2, 1, seed=0)))[0]
    assert type(epoch) is int
    assert type(index) is int
