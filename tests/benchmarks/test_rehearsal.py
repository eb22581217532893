"""The short version of `make rehearsal`: most of its stages on a tree of 280 names, and its memory limit."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.rehearsal.__main__ import main
from benchmarks.rehearsal.configurations import SIMSIAM, configuration_names, share_of
from benchmarks.rehearsal.device_memory import count_device_memory, saved_bytes
from benchmarks.rehearsal.watch import run_watched
from siamtransfer.methods import METHODS
from siamtransfer.pretraining.build import build_method
from siamtransfer.pretraining.start import configured_network
from siamtransfer.programs.pretrain import main as pretrain_program

COUNTS = ["--images=240", "--queries=40", "--classes=4", "--share=2", "--bank=60", "--evaluated=40"]
ALLOCATE = (
    "import time; block = bytearray(600 * 2**20); block[::4096] = b'x' * len(block[::4096]); time.sleep(60)"
)


@pytest.mark.thorough
def test_a_short_rehearsal_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stages = ["listing", "configurations", "checkpoint"]
    words = [*COUNTS, f"--folder={tmp_path}", "--configurations", SIMSIAM]

    status = main([*words, "--stages", *stages])

    output = capsys.readouterr().out
    assert status == 0, output
    metrics = json.loads(output.splitlines()[-1])["metrics"]
    assert metrics["rehearsal/listing/listing_train/images"] == 240
    assert metrics[f"rehearsal/configurations/{SIMSIAM}/host_GiB"] > 0
    assert metrics["rehearsal/checkpoint/kNN_of_a_checkpoint,_40_+_40_images/seconds"] > 0


def test_a_rank_above_the_limit_is_killed_and_fails_the_rehearsal(tmp_path: Path) -> None:
    watched = run_watched([sys.executable, "-c", ALLOCATE], tmp_path / "log", limit=0.3, timeout=50)

    assert watched.exceeded
    assert watched.status < 0
    assert watched.peak > 0.3


def test_a_stage_that_fails_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "imagenet").mkdir()
    (tmp_path / "imagenet" / "precious.txt").write_text("mine")

    status = main([*COUNTS, f"--folder={tmp_path}", "--stages", "listing"])

    assert status == 1
    assert "choose another --folder" in capsys.readouterr().out
    assert (tmp_path / "imagenet" / "precious.txt").read_text() == "mine"


def test_every_method_has_an_imagenet_configuration_whose_header_states_the_share_of_a_gpu() -> None:
    names = configuration_names()
    methods = {_parse(name).method.name for name in names}

    assert all(8 <= share_of(name) <= 512 for name in names)
    assert methods == set(METHODS) - {"simsiam-variants"}


def test_the_extrapolated_activations_are_those_that_a_step_of_that_size_saves() -> None:
    config = _parse(SIMSIAM, "--backbone.width=8", "--views.size=64")
    method = build_method(config, configured_network(config.backbone))

    counted = count_device_memory(config, 12, images=1000)

    assert counted.activations * 2**30 == pytest.approx(saved_bytes(method, [64, 64], 12), rel=0.01)
    assert counted.views * 2**30 == 12 * 2 * 3 * 64 * 64 * 4


def _parse(name: str, *words: str) -> Any:
    return pretrain_program.parse([f"--config={name}", *words])
