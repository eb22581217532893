"""Ranks that wait at their store: slow ones, dead ones, errors of one; and what a lost rank looks like."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_runs import on_ranks

from siamtransfer.distributed import collectives
from siamtransfer.distributed.meeting import LostRanks, Meeting, is_loss
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.utils.errors import UserError

TIMEOUT = 1.5  # seconds, of collectives and for a sign of life
SLOW = 4.0


def in_short(work: Callable[[Runtime], Any]) -> list[Any]:
    return on_ranks(work, timeout_minutes=TIMEOUT / 60)


def slow_work(runtime: Runtime) -> Any:
    began = time.monotonic()
    with collectives.own_pace("saving the state"):
        if runtime.is_main:
            time.sleep(SLOW)
    with collectives.rank_by_rank("a download"):
        time.sleep(TIMEOUT / 2)
    return time.monotonic() - began, collectives.all_reduce(torch.ones(1)).item()


def error_of_one(runtime: Runtime) -> Any:
    with collectives.own_pace("opening the images"):
        if runtime.rank == 1:
            raise UserError("there is no folder /data")
        return None


def late_for_a_collective(runtime: Runtime) -> Any:
    collectives.set_doing("at step 7")
    if runtime.rank == 1:
        collectives.set_doing("reading the images of step 8")
        time.sleep(SLOW)
    return collectives.all_reduce(torch.ones(1)).item()


def leaves_early(runtime: Runtime) -> Any:
    if runtime.rank == 0:
        collectives.barrier("saving the state")
    return "left"


def test_a_rank_slower_than_the_time_out_is_waited_for() -> None:
    for seconds, total in in_short(slow_work):
        assert seconds >= SLOW + TIMEOUT - 0.1
        assert total == 2


def test_an_error_of_one_rank_is_that_of_all() -> None:
    expected = ("UserError", "there is no folder /data")
    assert in_short(error_of_one) == [expected, expected]


def test_a_late_rank_is_told_with_what_each_one_did() -> None:
    (kind, said), (other, _) = in_short(late_for_a_collective)
    assert (kind, other) == ("LostRanks", "LostRanks")
    assert "waited 1.5 s" in said
    assert "rank 0 was at step 7" in said
    assert "rank 1 was reading the images of step 8" in said
    assert "hardware.timeout_minutes" in said


def test_a_rank_that_ended_is_told_to_those_that_wait_for_it() -> None:
    (kind, said), left = in_short(leaves_early)
    assert kind == "LostRanks"
    assert "rank 1 ended" in said
    assert left == "left"


def test_a_rank_without_signs_of_life_is_lost(tmp_path: Path) -> None:
    store = torch.distributed.FileStore(str(tmp_path / "store"), 2)
    meeting = Meeting(store, 0, 2, 0.4)
    began = time.monotonic()
    said = r"rank 1 has given no sign of life for 0\.4 s while saving"
    with pytest.raises(LostRanks, match=said), meeting.own_pace("saving"):
        pass
    assert time.monotonic() - began < 20
    store.add("left", 1)
    meeting.leave()


def test_other_errors_are_no_loss() -> None:
    assert not is_loss(RuntimeError("shapes do not fit"))
    assert not is_loss(UserError("Timed out"))
    assert is_loss(RuntimeError("[gloo/transport/tcp/pair.cc:1] Connection closed by peer [127.0.0.1]:1"))
