"""The programs that look for faults see one when there is one, and draw the same trial from the same seed."""

from __future__ import annotations

import ctypes
import os
import random
import signal
from pathlib import Path

import pytest
import torch
from support.small_runs import complete
from support.thorough import more

from benchmarks import chaos, native_sweep
from siamtransfer.backbones.architecture import build_backbone
from siamtransfer.utils.errors import UserError

pytestmark = pytest.mark.fault


def raise_user_error() -> None:
    raise UserError("a sentence")


def raise_other_error() -> None:
    raise ZeroDivisionError("division")


def raise_paragraph() -> None:
    raise UserError("two\nlines")


def crash() -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return ""


def test_an_error_that_is_no_sentence_is_a_fault() -> None:
    assert chaos.bounded(raise_user_error) == ""
    assert chaos.bounded(raise_other_error) == "ZeroDivisionError: division"
    assert "no sentence" in chaos.bounded(raise_paragraph)


def test_much_time_and_memory_are_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chaos, "LONGEST", -1)
    assert "it took 0.0 s" in chaos.bounded(lambda: None)
    monkeypatch.setattr(chaos, "LONGEST", 10)
    monkeypatch.setattr(chaos, "MOST_BYTES", 2**26)
    held: list[ctypes.Array[ctypes.c_char]] = []
    said = chaos.in_own_process(lambda: chaos.bounded(lambda: held.append(filled(2**28))))
    assert "GB" in said


def filled(size: int) -> ctypes.Array[ctypes.c_char]:
    """Memory that has been written, so that it counts."""
    block = ctypes.create_string_buffer(size)
    ctypes.memset(block, 1, size)
    return block


def test_a_crash_is_named_and_costs_one_case() -> None:
    assert chaos.in_own_process(crash) == "the process was ended by SIGKILL"
    cases = [("a", lambda: ""), ("b", crash), ("c", lambda: "wrong"), ("d", lambda: "")]
    assert native_sweep.sweep(cases) == {"b": "SIGKILL", "c": "wrong"}


def test_a_seed_draws_its_convolutions() -> None:
    one, other = (native_sweep.convolutions(random.Random(seed), 8, plain=False) for seed in (3, 4))
    again = native_sweep.convolutions(random.Random(3), 8, plain=False)
    assert [name for name, _ in one] == [name for name, _ in again] != [name for name, _ in other]
    assert native_sweep.sweep(one[:3]) == {}


@pytest.mark.parametrize("kind", ["image", "text", *map(more, ["weights", *chaos.RUNS])])
def test_a_trial_of_each_kind_passes(kind: str, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    if kind == "weights":
        whole.mkdir()
        torch.save(build_backbone("resnet18", width=2).state_dict(), whole / "checkpoint.pth")
    if kind in chaos.RUNS:
        complete(whole, *chaos.OPTIONS)
        whole.with_suffix(".seconds").write_text("1")
    work = {**chaos.READS, **chaos.RUNS}[kind]
    assert work(random.Random(5), whole, tmp_path / "run") == ""
