"""The README's first command at small size: every program of the way, called as a user calls it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from siamtransfer.weights.formats import read_backbone

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "--data.count=300", "--backbone.width=8", "--optim.epochs=2", "--monitor.knn_every=1",
    "--monitor.health_every=2", "--log.every=2",
]  # fmt: skip


@pytest.mark.detectron2
def test_from_images_to_a_proved_detectron2_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    command = [sys.executable, str(ROOT / "scripts" / "demo.py"), "--run", "here/run", "--", *SMALL]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]

    table = json.loads(done.stdout.splitlines()[-1])["metrics"]
    accuracies = [value for name, value in table.items() if "kNN" in name or "linear" in name]
    assert len(accuracies) == 4 and all(0 < value < 100 for value in accuracies)
    assert all(value < 1e-4 for name, value in table.items() if name.startswith("parity/"))
    assert {name for name in table if name.startswith("parity/")} == {
        "parity/float32/FPN/max_relative_error", "parity/float64/FPN/max_relative_error",
    }  # fmt: skip
    for name, value in table.items():
        if "kNN" in name or "linear" in name:
            assert f"{value:.2f}" in done.stderr

    run = tmp_path / "here" / "run"
    for name in ("checkpoint.pth", "backbone_d2.pkl", "backbone_d2.yaml", "curves.png", "metrics.jsonl"):
        assert (run / name).stat().st_size > 0
    assert read_backbone(run / "checkpoint.pth").digest in (run / "backbone_d2.yaml").read_text()

    # Interrupted demos go on where they were: asked again, nothing is trained anew.
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert again.returncode == 0, again.stderr[-2000:]
    repeated = json.loads(again.stdout.splitlines()[-1])["metrics"]
    assert {k: v for k, v in repeated.items() if k != "seconds"} == {
        k: v for k, v in table.items() if k != "seconds"
    }
