"""Without the stop-gradient the network collapses, and the alarm says so; with it, the alarm is silent."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.small_runs import launch, rows

from siamtransfer.pretraining.monitors import alarm
from siamtransfer.training.progress import StepProgress
from siamtransfer.utils.errors import UserError

# Small and hot, so that it happens in seconds: 256 steps at an initial rate of 0.0625.
QUICK = [
    "--run.seed=3", "--data.count=256", "--optim.batch_size=32", "--optim.epochs=32", "--optim.lr=0.5",
    "--simsiam.dim=64", "--checkpoint.every_steps=0", "--monitor.health_every=10",
    "--monitor.on_collapse=stop",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("collapse")


def test_without_stop_gradient_the_alarm_stops_the_run_and_with_it_there_is_none(folder: Path) -> None:
    collapsing = launch(folder / "off", *QUICK, "--simsiam.stop_gradient=false")
    healthy = launch(folder / "on", *QUICK)
    assert collapsing.wait() == 2
    alarm = collapsing.said.splitlines()[-1]
    found = re.match(r"error: COLLAPSE at step (\d+): ", alarm)
    assert found, alarm
    assert int(found[1]) <= 250
    for cause in (
        "optim.lr",
        "hardware.sync_batch_norm",
        "simsiam.predictor",
        "views.recipe",
        "simsiam.stop_gradient",
    ):
        assert cause in alarm
    assert healthy.wait() == 0, healthy.said
    assert healthy.record["metrics"]["collapse_alarms"] == 0
    last = [row for row in rows(folder / "on") if "health/std" in row][-1]
    assert last["health/std"] > 0.8
    assert last["health/effective_rank"] > 10


@pytest.mark.parametrize("wish", ["warn", "stop", "ignore"])
def test_what_an_alarm_does_is_configurable(wish: str, capsys: pytest.CaptureFixture[str]) -> None:
    progress = StepProgress(10, 0, 1)
    if wish == "stop":
        with pytest.raises(UserError, match=r"COLLAPSE; stopped as monitor\.on_collapse asks"):
            alarm("COLLAPSE", wish, progress)
    else:
        alarm("COLLAPSE", wish, progress)
    alarm(None, wish, progress)
    assert capsys.readouterr().err == ("COLLAPSE\n" if wish == "warn" else "")
