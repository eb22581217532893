"""The README's first command at small size: every program of the way, called as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import paths
from support.warm_python import run_python

from siamtransfer.checkpoints.read_backbone import read_backbone

pytestmark = pytest.mark.usefixtures("few_test_scenes")

ROOT = paths.ROOT
SMALL = [
    "--data.count=300", "--backbone.width=8", "--optim.epochs=2", "--monitor.knn_every=1",
    "--monitor.health_every=2", "--log.every=2",
]  # fmt: skip


@pytest.mark.detectron2
@pytest.mark.timeout(900)  # two demos, a minute on an idle machine and several on a busy one
def test_from_images_to_a_proved_detectron2_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    done = run_python(ROOT / "scripts" / "demo.py", "--run", "here/run", "--", *SMALL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]

    table = json.loads(done.stdout.splitlines()[-1])["metrics"]
    accuracies = [value for name, value in table.items() if "kNN" in name or "linear" in name]
    assert len(accuracies) == 4 and all(0 < value < 100 for value in accuracies)
    assert all(value < 1e-4 for name, value in table.items() if name.startswith("parity/"))
    assert {name for name in table if name.startswith("parity/")} == {
        f"parity/{dtype}/{trunk}/max_relative_error"
        for dtype in ("float32", "float64")
        for trunk in ("FPN", "D16", "D8")
    }
    for name, value in table.items():
        if "kNN" in name or "linear" in name:
            assert f"{value:.2f}" in done.stderr

    run = tmp_path / "here" / "run"
    for name in ("checkpoint.pth", "backbone_d2.pkl", "backbone_d2.yaml", "curves.png", "metrics.jsonl"):
        assert (run / name).stat().st_size > 0
    assert read_backbone(run / "checkpoint.pth").digest in (run / "backbone_d2.yaml").read_text()

    # And detection by the same run, with and without it.
    tiny = [
        "SCENES.TRAIN", "8", "SCENES.TEST", "4", "INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64",
        "SOLVER.MAX_ITER", "3", "SOLVER.STEPS", "()", "SOLVER.WARMUP_ITERS", "1", "SOLVER.IMS_PER_BATCH", "2",
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0", "TEST.PRECISE_BN.NUM_ITER", "1",
    ]  # fmt: skip
    command = [ROOT / "scripts" / "detection_demo.py", "--run", "here/run", "--trials", "2"]
    done = run_python(*command, "--", *tiny, cwd=tmp_path, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    detected = json.loads(done.stdout.splitlines()[-1])["metrics"]
    for task in ("detection", "segmentation"):
        difference, low, high = (
            detected[f"compare/{task}/AP/{part}"] for part in ("difference", "ci95_low", "ci95_high")
        )
        assert low <= difference <= high
        assert f"{difference:+.2f}" in done.stderr
    assert (run / "detection" / "backbone_d2" / "trial-0" / "predictions.png").stat().st_size > 0


def test_detection_without_a_pretrained_backbone_is_told(tmp_path: Path) -> None:
    done = run_python(ROOT / "scripts" / "detection_demo.py", "--run", "nowhere", cwd=tmp_path)
    assert done.returncode == 2
    assert "there is no pretrained nowhere/checkpoint.pth: run `make demo` first" in done.stderr
