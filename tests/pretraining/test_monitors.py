"""Monitors of a pretraining run: a user's own one, and what the built-in ones write."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from support.small_runs import TINY, images_of, rows

from siamtransfer.cli import Command
from siamtransfer.distributed.runtime import start_runtime
from siamtransfer.distributed.signals import StopSignal
from siamtransfer.pretraining import monitors as monitors_module
from siamtransfer.pretraining.loop import pretrain
from siamtransfer.pretraining.monitor import Monitor
from siamtransfer.pretraining.step_result import StepResult
from siamtransfer.programs.pretrain import PretrainOptions
from siamtransfer.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("few_test_scenes")


class ViewBrightness(Monitor):
    """A user's monitor: the mean of the first view, every fifth step."""

    def __init__(self) -> None:
        super().__init__(("own/brightness",), {"own_every": 5})

    def begin(self) -> dict[str, float]:
        return {"own/begun": 1.0}

    def due(self, result: StepResult) -> bool:
        return result.step % 5 == 0

    def check(self, result: StepResult) -> dict[str, float]:
        return {"own/brightness": float(result.views[0].mean())}


def run(folder: Path, *options: str, monitors: tuple[Monitor, ...] = ()) -> dict[str, dict[str, object]]:
    command = Command("pretrain", PretrainOptions, lambda options: None, "")
    config = command.parse([*TINY, f"--run.dir={folder}", *options])
    with start_runtime("cpu") as runtime, StopSignal() as stop:
        record = pretrain(config, runtime, stop, extra_monitors=monitors)
    assert record is not None
    return record


def test_a_users_monitor_writes_rows_and_enters_the_record_without_changing_the_run(tmp_path: Path) -> None:
    run(tmp_path / "plain")
    record = run(tmp_path / "watched", monitors=(ViewBrightness(),))
    own = [row for row in rows(tmp_path / "watched") if any(name.startswith("own/") for name in row)]
    assert [row["step"] for row in own] == [0, 5, 10, 15]
    assert record["metrics"]["own/brightness"] == own[-1]["own/brightness"]
    assert record["protocol"]["own_every"] == 5
    assert [row for row in rows(tmp_path / "watched") if row not in own] == rows(tmp_path / "plain")


@pytest.mark.parametrize(
    ("folders", "why"),
    [
        (("2023/may", "2023/june", "2024/may", "2024/june"), "may be no classes, as remarked above"),
        (("mine/may", "mine/june"), "are of one class"),
    ],
)
def test_labels_that_are_in_doubt_are_not_scored(
    folders: tuple[str, ...], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate(folders):
        (tmp_path / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), (number, 50, 50)).save(tmp_path / name / "1.png")
    command = Command("pretrain", PretrainOptions, lambda options: None, "")
    config = command.parse([*TINY, *images_of(tmp_path), "--monitor.knn_every=1"])
    with start_runtime("cpu") as runtime:
        assert monitors_module.build_knn(config, config.views.build(), runtime, 8) is None
    said = capsys.readouterr().err
    assert "no kNN check: " in said and why in said


def test_the_row_of_a_collapse_is_written_before_the_run_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    health = dict.fromkeys(("std", "effective_rank", "rank_share", "centre_norm", "view_cosine"), 0.0)
    collapsed = {f"health/{name}": value for name, value in health.items()}
    monkeypatch.setattr(monitors_module, "projection_health", lambda *z: collapsed)
    with pytest.raises(UserError, match=r"COLLAPSE at step 6.*stopped as monitor\.on_collapse asks"):
        run(tmp_path / "run", "--monitor.on_collapse=stop")
    assert [row["step"] for row in rows(tmp_path / "run") if "health/std" in row] == [2, 4, 6]


def test_the_record_has_plain_aliases_beside_the_full_names(tmp_path: Path) -> None:
    metrics = run(tmp_path / "run", "--monitor.knn_every=3", "--monitor.knn_k=5")["metrics"]
    assert metrics["knn/top1"] == metrics["knn/k=5/T=0.07/top1"]
    assert metrics["baseline/untrained/knn/top1"] == metrics["baseline/untrained/knn/k=5/T=0.07/top1"]
    assert not any(name.startswith("knn/top") for row in rows(tmp_path / "run") for name in row)
