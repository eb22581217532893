"""The command line of `launch`: its words, those of the program, and a job with a fake sbatch."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from siamtransfer.programs.launch import main, split_words
from siamtransfer.utils.errors import UserError


@pytest.fixture
def sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fake sbatch that answers as the file `answer` says, in the current folder."""
    tool = tmp_path / "tools" / "sbatch"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/bash\necho "$*" > {tmp_path}/called\n. {tmp_path}/answer\n')
    tool.chmod(0o755)
    (tmp_path / "answer").write_text("echo '77;cluster'")
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_words_are_split_at_the_program() -> None:
    own = ["--slurm", "--partition", "knn", "--nodes=2", "--sbatch", "qos=high", "--no-dry-run"]
    assert split_words([*own, "pretrain", "--slurm"]) == (own, ["pretrain", "--slurm"])
    assert split_words(["--slurm", "true", "knn"]) == (["--slurm", "true"], ["knn"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "name the program"),
        ("knnn", "did you mean knn"),
        ("detection", "launch cannot start 'detection'"),
        ("--nodes 2 pretrain", "--nodes is an option of Slurm jobs"),
        ("--gpus 0 pretrain", "--gpus is 0"),
        ("--processes 2 --slurm pretrain", "leave out --gpus and --slurm"),
        ("--slurm pretrain --optim.lrr 3", "did you mean --optim.lr"),
        ("--slurm pretrain --monitor.knn-k 0", "monitor.knn_k"),
        ("--slurm pretrain --data.name folder --data.root /no/such", "data.root /no/such does not exist"),
        ("--slurm pretrain --optim.batch-size 100", "batch_size 100 does not divide into 8 ranks"),
        ("--slurm --stage /x pretrain", "give --data.root FOLDER"),
        ("--slurm --time 3x pretrain", "--time '3x' is no limit"),
        ("--slurm --account a;b pretrain", "--account 'a;b'"),
    ],
)
def test_a_mistake_is_found_before_anything_starts(sbatch: Path, words: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        main(words.split())
    assert not (sbatch / "called").exists()
    assert not (sbatch / "runs").exists()


def test_a_job_is_written_and_submitted(sbatch: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "--slurm --nodes 2 --gpus 4 --time 90 --partition p --sbatch qos=q --stage $LOCAL/im pretrain"
    main([*words.split(), "--data.name", "folder", "--data.root", str(sbatch), "--run.dir", "a b"])
    (script,) = (sbatch / "runs").glob("pretrain-*.slurm")
    assert (sbatch / "called").read_text().split() == ["--parsable", f"runs/{script.name}"]
    said = capsys.readouterr().err
    assert "job 77 is submitted" in said
    assert "slurm-77.log" in said
    lines = script.read_text().splitlines()
    wanted = ("nodes=2", "gpus-per-node=4", "cpus-per-task=32", "time=90", "partition=p", "qos=q")
    assert {f"#SBATCH --{line}" for line in wanted} <= set(lines)
    assert f"set -- --data.name folder --data.root {sbatch} --run.dir 'a b'" in lines
    assert 'stage_to="${LOCAL:?is not set in this job}/im"' in lines
    subprocess.run(["bash", "-n", script], check=True)


def test_a_refused_job_leaves_no_script(sbatch: Path) -> None:
    (sbatch / "answer").write_text("echo 'invalid partition' >&2; exit 1")
    with pytest.raises(UserError, match="sbatch refuses the job: invalid partition"):
        main(["--slurm", "pretrain"])
    assert not list((sbatch / "runs").iterdir())


def test_without_sbatch_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="there is no sbatch on this machine"):
        main(["--slurm", "pretrain"])


def test_a_dry_run_prints_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--processes", "2", "--max-restarts", "1", "--dry-run", "pretrain", "--run.dir", "a b"])
    said = capsys.readouterr().out
    assert "--nproc-per-node 2 --max-restarts 1 -m siamtransfer.programs.pretrain --resume" in said
    assert said.endswith("'a b'\n")
