"""A training that goes on in another precision, with and without a loss scale."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from siamtransfer.distributed.runtime import Runtime
from siamtransfer.training.loss_scale import load_loss_scale

CPU = torch.device("cpu")
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
START = 65536.0  # torch's first scale


def scaler_of(precision: str, scale: float = START) -> torch.amp.GradScaler:
    scaler = Runtime(CPU, TYPES[precision]).scaler()
    if scaler.is_enabled():
        scaler.load_state_dict(scaler.state_dict() | {"scale": scale})
    return scaler


def carry_over(saved: str, current: str, *, recorded: bool, rank: int = 0) -> torch.amp.GradScaler:
    """The scaler of a training in precision `current` that goes on from a state in `saved`, scale 8."""
    state: dict[str, Any] = scaler_of(saved, 8.0).state_dict()
    scaler = scaler_of(current)
    runtime = Runtime(CPU, TYPES[current], rank=rank, world_size=rank + 1)
    load_loss_scale(scaler, state, runtime, saved if recorded else None)
    return scaler


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("current", TYPES)
@pytest.mark.parametrize("saved", TYPES)
def test_every_precision_goes_on_in_every_other(
    saved: str, current: str, recorded: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "siamtransfer"):
        scaler = carry_over(saved, current, recorded=recorded)
    if current == "float16":
        assert scaler.get_scale() == (8 if saved == "float16" else START)
    else:
        assert not scaler.is_enabled()
    change_is_known = saved != current if recorded else (saved == "float16") != (current == "float16")
    assert len(caplog.records) == change_is_known
    if change_is_known:
        words = caplog.text
        assert f"goes on in {current}" in words
        assert (f"saved in {saved}" in words) or not recorded
        assert ("loss scale starts at 65536" in words) == (current == "float16")


def test_only_rank_0_says_it(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "siamtransfer"):
        carry_over("float32", "float16", recorded=True, rank=1)
    assert not caplog.records
