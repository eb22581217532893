"""The Slurm script with a fake srun and scontrol: what it hands on, and when it queues the job again."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from siamtransfer.training.stop_marker import VARIABLE, mark_stopped

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "pretrain.slurm"
SAVED = f'echo 143 > "${VARIABLE}"; exit 1'


def submit(folder: Path, step: str, restarts: int = 0) -> tuple[int, list[str], str]:
    """The job's exit status, the calls of srun and scontrol, and stderr; `step` is what srun runs."""
    tools, calls = folder / "tools", folder / "calls"
    tools.mkdir()
    for name, body in (
        ("srun", step),
        ("scontrol", 'if [ "$1" = show ]; then printf "node1\\nnode2\\n"; fi'),
    ):
        (tools / name).write_text(f'#!/bin/bash\necho "{name} $*" >> "{calls}"\n{body}\n')
        (tools / name).chmod(0o755)
    job = {
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "SLURM_JOB_ID": "1234567",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_GPUS_ON_NODE": "8",
        "SLURM_CPUS_PER_TASK": "64",
        "SLURM_RESTART_COUNT": str(restarts),
        "MAX_REQUEUES": "3",
    }
    done = subprocess.run(
        ["bash", str(SCRIPT), "--run.dir", "a b"], cwd=folder, env=job, capture_output=True, text=True
    )
    return done.returncode, calls.read_text().splitlines(), done.stderr


def test_a_run_that_ends_is_not_queued_again(tmp_path: Path) -> None:
    status, calls, _ = submit(tmp_path, "exit 0")
    assert status == 0
    assert not any("requeue" in call for call in calls)
    assert "--cpus-per-task=64" in calls[-1]
    assert "--rdzv-endpoint node1:24567" in calls[-1]


def test_an_error_is_not_queued_again(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "slurm-1234567.stopped").touch()  # of an earlier start
    status, calls, _ = submit(tmp_path, "exit 1")
    assert status == 1
    assert not any("requeue" in call for call in calls)


@pytest.mark.parametrize("restarts", [0, 2, 3])
def test_a_run_saved_on_a_signal_is_queued_again_so_many_times(tmp_path: Path, restarts: int) -> None:
    status, calls, said = submit(tmp_path, SAVED, restarts)
    assert status == 1
    assert ("scontrol requeue 1234567" in calls) == (restarts < 3)
    assert ("3 times already" in said) == (restarts == 3)
    assert not (tmp_path / "runs" / "slurm-1234567.stopped").exists()


def test_the_marker_is_written_where_its_variable_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    mark_stopped(143)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "marker"))
    mark_stopped(143)
    assert (tmp_path / "marker").read_text() == "143\n"
