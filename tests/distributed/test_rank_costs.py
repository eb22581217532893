"""What the ranks of a job cost together, also where the first one fails."""

from __future__ import annotations

from typing import Any

from support.small_runs import on_ranks

from siamtransfer.distributed.rank_costs import share_costs
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.metering.meter import ImageClock, count_cached, current_cost, metered


def work(runtime: Runtime) -> Any:
    with metered():
        ImageClock().count(10 + runtime.rank)
        count_cached(2.5)
        share_costs()
        share_costs()
        return current_cost()


def failing_on_rank_0(runtime: Runtime) -> Any:
    with metered():
        if runtime.is_main:
            return "its message says why"
        share_costs()
        cost = current_cost()
        return cost and cost["processes"]


def test_images_add_up_on_every_rank_and_once() -> None:
    for cost in on_ranks(work):
        assert (cost["images"], cost["features_from_cache"], cost["processes"]) == (21, 5, 2)


def test_a_rank_whose_first_rank_is_gone_leaves_quietly() -> None:
    assert on_ranks(failing_on_rank_0) == ["its message says why", 1]


def test_alone_and_without_a_meter_there_is_nothing_to_share() -> None:
    share_costs()
    with metered() as meter:
        share_costs()
        assert meter.others == []
