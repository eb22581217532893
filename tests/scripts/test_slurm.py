"""The Slurm script with a fake srun and scontrol: what it hands on, and when it queues the job again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.small_runs import TINY

from siamtransfer.launch.slurm import Job, job_script
from siamtransfer.programs.pretrain import main as pretrain
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


REAL_SRUN = """#!/bin/bash
# Runs the command as Slurm's step: on the first start it is signalled when the run has begun.
shift
if [ -e "{folder}/signalled" ]; then exec "$@"; fi
"$@" & child=$!
until [ -s "{folder}/run/metrics.jsonl" ]; do
    kill -0 $child 2>/dev/null || break
    sleep 0.02
done
touch "{folder}/signalled"
kill -TERM $child
wait $child
"""


@pytest.mark.slow
def test_a_signalled_job_is_queued_again_and_goes_on_to_the_bit(tmp_path: Path) -> None:
    """The script, torchrun and a run on the CPU are real; srun and scontrol are not."""
    tools, calls = tmp_path / "tools", tmp_path / "calls"
    tools.mkdir()
    for name, text in (
        ("srun", REAL_SRUN.format(folder=tmp_path)),
        ("scontrol", f'#!/bin/bash\necho "$*" >> "{calls}"\n'),
    ):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    options = [*TINY, "--hardware.threads", "1", "--optim.epochs", "6"]
    words = (*options, "--run.dir", str(tmp_path / "run"))
    job = Job("pretrain", words, True, sys.executable, 1, 1, 1, "10", None, None, (), 0, None)
    (tmp_path / "job").write_text(job_script(job))
    environment = os.environ | {
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(SCRIPT.parents[1]),
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_CPUS_PER_TASK": "1",
    }

    def start() -> int:
        return subprocess.run(["bash", "job"], cwd=tmp_path, env=environment, check=False).returncode

    assert start() == 1
    assert calls.read_text() == "requeue 7\n"
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) < 30
    assert start() == 0
    assert calls.read_text() == "requeue 7\n"
    pretrain([*options, "--run.dir", str(tmp_path / "whole")])
    ended, whole = (
        torch.load(tmp_path / name / "checkpoint.pth", weights_only=True)["model"]
        for name in ("run", "whole")
    )
    assert ended.keys() == whole.keys()
    assert all(torch.equal(ended[name], whole[name]) for name in whole)
