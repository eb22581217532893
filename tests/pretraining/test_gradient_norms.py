"""Norms of gradients in the journal, and what counts as a spike of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_methods import small, some_views
from support.small_networks import small_vit
from support.small_runs import TINY, rows
from support.thorough import more
from torch import nn

from siamtransfer.backbones.backbone import Backbone
from siamtransfer.cli import Command
from siamtransfer.distributed.runtime import start_runtime
from siamtransfer.distributed.signals import StopSignal
from siamtransfer.methods import METHODS, StepOutput
from siamtransfer.pretraining.gradient_norms import (
    GradientNormMonitor,
    SpikeWatch,
    first_layer,
    gradient_norm,
    places_of,
    require_first_layer,
)
from siamtransfer.pretraining.loop import pretrain
from siamtransfer.pretraining.step_result import StepResult
from siamtransfer.programs.pretrain import PretrainOptions
from siamtransfer.training.guard import StepReport
from siamtransfer.utils.errors import UserError


def began(norms: list[float], **settings: Any) -> list[int]:
    watch = SpikeWatch(**settings)
    for step, norm in enumerate(norms):
        watch.check(step, {"all": norm})
    return watch.began["all"]


def test_a_spike_is_a_multiple_of_the_median_before_it() -> None:
    assert began([1.0] * 20 + [4.1, 1.0, 3.9]) == [20]
    assert began([1.0] * 19 + [9.0]) == []  # too few before it
    assert began([1.0, 3.0] * 10 + [8.1]) == [20]  # 4 times the median of 2, not the mean or the largest


def test_spikes_in_a_row_are_one_and_those_apart_are_two() -> None:
    assert began([1.0] * 20 + [5.0, 6.0, 7.0, 1.0, 5.0]) == [20, 24]


def test_only_the_last_measurements_count() -> None:
    assert began([1.0] * 30 + [3.0] * 30 + [11.0], window=20) == []
    assert began([1.0] * 30 + [3.0] * 30 + [13.0], window=20) == [60]


def test_places_are_watched_one_by_one() -> None:
    watch = SpikeWatch()
    for step in range(20):
        watch.check(step, {"first_layer": 1.0, "all": 10.0})
    assert watch.check(20, {"first_layer": 5.0, "all": 20.0}) == ["first_layer"]
    assert watch.check(21, {"first_layer": 5.0, "all": 50.0}) == ["all"]
    assert watch.began == {"first_layer": [20], "all": [21]}


def test_a_row_without_a_number_does_not_end_a_spike() -> None:
    """Such as one of a step that overflowed in float16."""
    watch = SpikeWatch()
    for step, norm in enumerate([*[1.0] * 20, 5.0, None, 6.0, 1.0, None, 5.0]):
        watch.check(step, {} if norm is None else {"all": norm})
    assert watch.began == {"all": [20, 25]}


def test_the_watch_goes_on_from_what_a_checkpoint_holds() -> None:
    norms = [1.0] * 20 + [5.0, 6.0, 1.0, 5.0]
    for cut in (0, 5, 21, 22):
        watch = SpikeWatch()
        for step, norm in enumerate(norms):
            if step == cut:
                watch = SpikeWatch(**json.loads(json.dumps(vars(watch))))
            watch.check(step, {"all": norm})
        assert watch.began == {"all": [20, 23]}, cut


def test_the_norm_is_that_of_all_parameters_together() -> None:
    layer = nn.Linear(1, 2)
    layer.weight.grad, layer.bias.grad = torch.tensor([[3.0], [0.0]]), torch.tensor([0.0, 4.0])
    assert float(gradient_norm(layer.parameters()) or 0) == 5.0
    assert gradient_norm(nn.Linear(1, 2).parameters()) is None


def test_the_first_layer_of_a_vit_is_its_patch_embedding() -> None:
    network = small_vit()
    patches: Any = network.model
    assert first_layer(network) is patches.patch_embed.proj
    method = METHODS["simclr"](network, METHODS["simclr"].Config(dim=8))  # type: ignore[call-arg]
    places = places_of(method)
    assert list(places) == ["first_layer", "last_block", "all"]
    assert {id(p) for p in places["first_layer"]} == {id(p) for p in patches.patch_embed.proj.parameters()}
    assert {id(p) for p in places["last_block"]} == {id(p) for p in patches.blocks[-1].parameters()}


class NoConvolution(Backbone):
    def __init__(self) -> None:
        super().__init__()
        self.name, self.dim, self.linear = "perceptron", 4, nn.Linear(3, 4)


def test_a_network_without_a_convolution_is_refused() -> None:
    with pytest.raises(UserError, match="perceptron has no convolution that could be its first layer"):
        require_first_layer(NoConvolution())


def test_a_frozen_first_layer_has_no_norm() -> None:
    method = small("simclr")
    first = first_layer(method.backbone)
    assert first is not None
    first.requires_grad_(requires_grad=False)
    method(some_views()).loss.backward()
    monitor = GradientNormMonitor(method, SpikeWatch(), 2)
    monitor.see_gradients(3)
    assert monitor._found == {}  # not due
    monitor.see_gradients(4)
    expected = torch.stack([p.grad.square().sum() for p in method.parameters() if p.grad is not None]).sum()
    assert "first_layer" not in monitor._found
    assert torch.allclose(monitor._found["all"] ** 2, expected)


def test_a_step_that_overflows_in_float16_is_no_spike_and_no_row() -> None:
    monitor = GradientNormMonitor(small("simclr"), watch := SpikeWatch(), 1)
    assert monitor.protocol["gradient_spikes"]["began"] == {}  # of a run that ends before the first check
    monitor._found = {"all": torch.tensor(2.0)}
    for step in range(1, 21):
        monitor.check(result_of(step))
    monitor._found = {"all": torch.tensor(torch.inf)}
    assert monitor.check(result_of(21)) == {}
    monitor._found = {"all": torch.tensor(9.0)}
    assert monitor.check(result_of(22)) == {"gradient_norm/all": 9.0, "gradient_norm/all/spikes": 1.0}
    assert watch.began == {"all": [22]} and watch.recent["all"] == [2.0] * 20 + [9.0]


def result_of(step: int) -> StepResult:
    output = StepOutput(torch.zeros(()), [])
    return StepResult(step, 0.1, StepReport(0.0, True, True, None), output, [], [])


def run(folder: Path, *options: str) -> dict[str, Any]:
    command = Command("pretrain", PretrainOptions, lambda options: None, "")
    config = command.parse([*TINY, f"--run.dir={folder}", *options])
    with start_runtime("cpu") as runtime, StopSignal() as stop:
        record = pretrain(config, runtime, stop)
    assert record is not None
    return record


def norms_of(folder: Path) -> list[dict[str, float]]:
    return [row for row in rows(folder) if "gradient_norm/all" in row]


def test_a_run_writes_them_before_clipping_and_changes_nothing_else(tmp_path: Path) -> None:
    run(tmp_path / "plain")
    record = run(tmp_path / "watched", "--monitor.gradient_norms_every=5")
    own = norms_of(tmp_path / "watched")
    assert [row["step"] for row in own] == [5, 10, 15]
    assert all(0 < row["gradient_norm/first_layer"] < row["gradient_norm/all"] for row in own)
    assert record["metrics"]["gradient_norm/all"] == own[-1]["gradient_norm/all"]
    assert record["metrics"]["gradient_norm/first_layer/spikes"] == 0
    began = record["protocol"]["gradient_spikes"]["began"]
    assert began == {"first_layer": [], "last_block": [], "all": []}
    assert [row for row in rows(tmp_path / "watched") if row not in own] == rows(tmp_path / "plain")


@pytest.mark.parametrize("guard", [more("step"), more("device")])
def test_the_last_norm_is_that_of_the_accumulated_gradient(guard: str, tmp_path: Path) -> None:
    options = ["--monitor.gradient_norms_every=1", f"--hardware.guard={guard}", "--optim.grad_accum_steps=2"]
    run(tmp_path / "run", *options)
    assert len(norms_of(tmp_path / "run")) == 15
