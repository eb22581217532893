"""The cost of a run that stops and goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support.small_runs import STEPS, TINY

from siamtransfer.programs.pretrain import main as pretrain

MONITORS_OFF = ("--monitor.knn_every=0", "--monitor.health_every=0", "--log.tensorboard=false")


def cost_of_run(folder: Path, *more: str) -> dict[str, Any]:
    record = pretrain([*TINY, f"--run.dir={folder}", *MONITORS_OFF, *more])
    assert record is not None
    cost: dict[str, Any] = record["provenance"]["cost"]
    return cost


def test_processes_of_a_run_add_up_and_a_lost_file_is_said(tmp_path: Path) -> None:
    folder, kept = tmp_path / "run", tmp_path / "run" / "cost.json"
    first = cost_of_run(folder)
    images = first["images"]
    assert images % STEPS == 0 and first["image_seconds"] < first["seconds"]
    per_epoch = images // 3
    known = json.loads(kept.read_text())
    assert known["images"] == images
    second = cost_of_run(folder, "--resume", "--optim.epochs=4")
    assert second["images"] == images + per_epoch
    assert second["seconds"] > known["seconds"] and second["image_seconds"] > first["image_seconds"]
    assert "since_step" not in second
    kept.write_text(kept.read_text().replace("images", "pictures"))
    third = cost_of_run(folder, "--resume", "--optim.epochs=5")
    assert (third["images"], third["since_step"]) == (per_epoch, 4 * STEPS // 3)
