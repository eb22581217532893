"""Two ranks: one slower than the time-out in each place where ranks differ; a fault at a random moment.

`make faults-ranks` makes trials of the second kind for ten minutes, with four ranks too.
"""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.small_runs import launch_ranks, steps_kept

from benchmarks.fault_ranks import FAULTS, trial, undisturbed
from siamtransfer.checkpoints.training_state import Checkpoints
from siamtransfer.data.imageset import ArrayImages
from siamtransfer.features import extract
from siamtransfer.pretraining import images

TIMEOUT = 3.0  # seconds, of collectives
SLOW = 4.5
SHORT = ["--optim.epochs=1", "--monitor.knn_every=1", "--monitor.knn_k=5", "--checkpoint.every_steps=0"]


def slow_in_every_place(path: Path) -> None:
    """Makes this rank slow once in listing (or a download), fingerprint, kNN check and save; notes each."""

    def slowed(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def late(*arguments: Any, **named: Any) -> Any:
            noted = path.read_text().split() if path.exists() else []
            if name not in noted:
                path.write_text(" ".join([*noted, name]))
                time.sleep(SLOW)
            return original(*arguments, **named)

        return late

    images.open_images = slowed("listing", images.open_images)
    ArrayImages.fingerprint = property(slowed("fingerprint", ArrayImages.fingerprint.func))  # type: ignore[attr-defined, assignment]
    extract.centre_crop = slowed("check", extract.centre_crop)
    Checkpoints.save = slowed("save", Checkpoints.save)  # type: ignore[method-assign]


@pytest.mark.thorough  # distributed/test_meeting.py has the meeting of ranks alone
def test_a_rank_slower_than_the_time_out_ends_no_run(tmp_path: Path) -> None:
    noted = tmp_path / "noted"
    fault = functools.partial(slow_in_every_place, noted)
    limit = f"--hardware.timeout_minutes={TIMEOUT / 60}"
    runs = launch_ranks(tmp_path / "run", *SHORT, limit, faults={0: fault})
    assert [run.wait() for run in runs] == [0, 0], [run.said for run in runs]
    assert sorted(noted.read_text().split()) == ["check", "fingerprint", "listing", "save"]
    assert steps_kept(tmp_path / "run") == [5]


@pytest.mark.thorough  # make faults-ranks has ten minutes of them
def test_a_fault_at_a_random_moment_costs_no_bit(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")  # which `python -m benchmarks.fault_ranks --seed` takes, with faults of its own
    faults = [fault for fault in FAULTS if fault != "long pause"]
    whole = undisturbed(tmp_path / "whole", 2)
    name, wrong = trial(seed, tmp_path / "run", {2: whole}, numbers=(2,), faults=faults)
    assert not wrong, f"seed {seed}: {name}: {wrong}"
