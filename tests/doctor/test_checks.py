"""The checks of `siamtransfer doctor --gpu`, run on the CPU at tiny size, and what breaks them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from siamtransfer.doctor import choices, evaluators, numerics, runner, several_ranks, small_runs
from siamtransfer.doctor.config import DoctorConfig
from siamtransfer.doctor.findings import Check, Finding, judged
from siamtransfer.doctor.workbench import Workbench
from siamtransfer.methods import METHODS
from siamtransfer.programs.doctor import main

CPU = torch.device("cpu")
BENCH = Workbench(DoctorConfig(cpu=True), CPU, tiny=True)
IN_THE_TEST = (
    *("painting", "parity", "layout", "guard", "methods", "neighbours", "faiss_search"),
    *("features", "logistic", "speed", "optimizers", "compile", "whole_run", "sync_batch_norm"),
)
"""Checks that take a second or so on the CPU; the others are of `make doctor`."""


@pytest.fixture(scope="module")
def record() -> dict:
    found = main(["--cpu", "--only", *IN_THE_TEST])
    assert found is not None, "nothing failed"
    return found


def test_every_check_runs_on_the_cpu_and_none_fails(record: dict) -> None:
    findings = record["provenance"]["findings"]
    assert {name.partition("/")[0] for name in findings} == set(IN_THE_TEST)
    assert {each["status"] for each in findings.values()} == {"PASS", "INFO", "SKIP"}
    skipped = {name for name, each in findings.items() if each["status"] == "SKIP"}
    assert skipped - {"faiss_search"} == {"compile", "sync_batch_norm"}
    assert {f"methods/{name}" for name in METHODS} <= set(findings)


def test_on_the_cpu_the_device_equals_the_cpu(record: dict) -> None:
    findings = record["provenance"]["findings"]
    assert all(findings[f"painting/{name}"]["value"] == 0 for name in numerics.RECIPES)
    assert findings["parity/float32"]["value"] == pytest.approx(1, abs=1e-6)
    assert findings["neighbours/like_the_cpu"]["value"] == 1
    assert findings["whole_run/same_rows"]["value"] == 0
    assert findings["whole_run/sigterm"]["value"] == 143


def test_speeds_are_numbers_of_the_record(record: dict) -> None:
    for name in ("speed/4/network", "speed/4/checked", "speed/4/augmented", "whole_run/images_per_second"):
        assert record["metrics"][name] > 0


def test_a_wrong_augmentation_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    right = numerics.augment_batch

    def brighter(*args, channels_last=False):
        views = right(*args, channels_last=channels_last)
        return [view + 0.1 for view in views] if channels_last else views

    monkeypatch.setattr(numerics, "augment_batch", brighter)
    found = [each for each in numerics.check_painting(BENCH) if "channels_last" not in each.name]
    assert {each.status for each in found} == {"FAIL"}


def test_a_gradient_that_points_elsewhere_or_is_too_long_fails() -> None:
    right, generator = torch.randn(100, generator=torch.Generator().manual_seed(0)), torch.Generator()
    other = torch.randn(100, generator=generator.manual_seed(1))
    statuses = [
        numerics.compare_gradients("x", (loss, gradient), (0.5, right), 0.99).status
        for loss, gradient in ((0.5, right), (0.5, other), (0.5, 2 * right), (0.6, right))
    ]
    assert statuses == ["PASS", "FAIL", "FAIL", "FAIL"]


def test_neighbours_that_differ_fail() -> None:
    s, i = torch.rand(4, 5), torch.arange(20).view(4, 5)
    assert evaluators.compare_neighbours("x", (s, i), (s, i), 0.99).status == "PASS"
    assert evaluators.compare_neighbours("x", (s, i + 1), (s, i), 0.99).status == "FAIL"
    assert evaluators.compare_neighbours("x", (s + 1e-3, i), (s, i), 0.99).status == "FAIL"


def test_an_exception_is_a_failure_and_what_no_longer_fits_is_left_out() -> None:
    def broken(bench: Workbench) -> Iterator[Finding]:
        yield judged("before", True, "fine")
        raise ValueError("two\nlines")

    checks = [
        Check("broken", broken, 1, "a device"),
        Check("long", broken, 1e9, "a device"),
        Check("on_gpu", broken, 1, "a GPU"),
    ]
    found = [each for _, each in runner.run_checks(checks, BENCH, budget=60)]
    assert [(each.name, each.status) for each in found] == [
        ("before", "PASS"),
        ("broken/error", "FAIL"),
        ("long", "SKIP"),
        ("on_gpu", "SKIP"),
    ]
    assert found[1].text == "ValueError: two lines"
    assert "left of --budget" in found[2].text


@pytest.mark.parametrize(
    ("speed_up", "difference", "flags"),
    [(1.5, 0.0, ["--hardware.guard device"]), (1.01, 0.0, []), (1.5, 0.5, [])],
)
def test_an_option_is_recommended_where_it_is_equal_and_faster(
    speed_up: float, difference: float, flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = [config.run.dir for config in ()]

    def losses(config):
        return dict.fromkeys(range(1, 9), difference * (config.hardware.guard == "device"))

    monkeypatch.setattr(choices, "train", lambda config: changed.append(config.run.dir) or 0)
    monkeypatch.setattr(choices, "losses_of", losses)
    monkeypatch.setattr(
        choices,
        "speed_of",
        lambda config: (100 * (speed_up if config.hardware.guard == "device" else 1), 0.0),
    )
    monkeypatch.setattr(
        choices, "CHOICES", (choices.Choice("guard", "device"), choices.Choice("nosuch", True))
    )
    found = {each.name: each for each in choices.check_choices(BENCH)}
    assert len(changed) == 2
    assert found["choices/nosuch=True"].status == "SKIP"
    assert found["choices/guard=device/parity"].status == ("FAIL" if difference else "PASS")
    assert found["choices/advice"].value == flags


def test_flags_are_those_of_the_command_line() -> None:
    assert choices.Choice("cuda_graph", True).flag == "--hardware.cuda-graph"
    assert choices.Choice("guard", "device").flag == "--hardware.guard device"


def test_ranks_that_die_are_told_by_their_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(several_ranks.sys, "executable", "/bin/false")
    assert several_ranks.run_ranks(["cpu"], "gloo") == "they ended without a word"


def test_rows_of_the_start_do_not_count_for_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"images_per_second": v, "data_wait_share": 0.5} for v in (1, 1, 50, 50, 60, 60)]
    monkeypatch.setattr(small_runs, "rows_of", lambda config: [{"step": 1}, *rows])
    assert small_runs.speed_of(None) == (55.0, 0.5)
