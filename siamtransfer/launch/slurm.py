"""A Slurm job from the shipped script: its lines are filled in, then sbatch takes it."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from siamtransfer.utils.errors import UserError

SCRIPT = Path(__file__).with_name("pretrain.slurm")
_TIME = re.compile(r"\d+|\d+:\d\d(:\d\d)?|\d+-\d+(:\d\d){0,2}")
_VALUE = re.compile(r"[\w.,:@%+/=-]+", re.ASCII)
_VARIABLE = re.compile(r"\$\{?([A-Za-z_]\w*)\}?", re.ASCII)
_FOLDER = re.compile(rf"([\w./-]|{_VARIABLE.pattern})+", re.ASCII)


@dataclass(frozen=True)
class Job:
    """What a job asks of Slurm, and what it runs.

    Attributes:
        program: a program of `siamtransfer`; `words` are its options.
        resume: whether the program has --resume, by which a job that is queued again goes on.
        gpus: GPUs a node, each with one process and `cpus_per_gpu` processors.
        time: limit in Slurm's spelling: minutes, HH:MM:SS or D-HH:MM:SS.
        more: further options of sbatch, such as `qos=high`.
        stage: the data root and the folder of a node that becomes a copy of it; $VARIABLES of the job hold.
    """

    program: str
    words: tuple[str, ...]
    resume: bool
    python: str
    nodes: int
    gpus: int
    cpus_per_gpu: int
    time: str
    partition: str | None
    account: str | None
    more: tuple[str, ...]
    max_restarts: int
    stage: tuple[str, str] | None

    def check(self) -> None:
        """Raises UserError for a value that Slurm or the script would misread."""
        if not _TIME.fullmatch(self.time):
            raise UserError(f"--time {self.time!r} is no limit: give minutes, HH:MM:SS or D-HH:MM:SS")
        given = {"--partition": self.partition, "--account": self.account}
        for flag, value in (*given.items(), *(("--sbatch", option) for option in self.more)):
            if value is not None and not _VALUE.fullmatch(value):
                raise UserError(f"{flag} {value!r} has a character that a line of #SBATCH cannot hold")
        if self.stage and not _FOLDER.fullmatch(self.stage[1]):
            raise UserError(
                f"--stage {self.stage[1]!r}: a name of letters, digits and ._-/ is needed, and $VARIABLE for "
                "one of the job"
            )


def job_script(job: Job) -> str:
    """The shipped script with the job's lines in it."""
    requests = {
        "job-name": job.program,
        "nodes": str(job.nodes),
        "gpus-per-node": str(job.gpus),
        "cpus-per-task": str(job.gpus * job.cpus_per_gpu),
        "time": job.time,
    }
    settings = {
        "python": shlex.quote(job.python),
        "program": job.program.replace("-", "_"),
        "resume": "--resume" if job.resume else "",
        "processes": str(job.gpus),
        "max_restarts": str(job.max_restarts),
    }
    if job.stage:
        target = _VARIABLE.sub(r"${\1:?is not set in this job}", job.stage[1])
        settings |= {"stage_from": shlex.quote(job.stage[0]), "stage_to": f'"{target}"'}
    text = SCRIPT.read_text(encoding="utf-8")
    for name, value in requests.items():
        text = _replace_line(text, f"#SBATCH --{name}=", value)
    for name, value in settings.items():
        text = _replace_line(text, f"{name}=", value)
    given = {"partition": job.partition, "account": job.account}
    more = [f"{name}={value}" for name, value in given.items() if value is not None] + list(job.more)
    head, time, tail = text.partition("#SBATCH --time=")
    lines = "".join(f"#SBATCH --{option}\n" for option in more)
    return _replace_line(
        f"{head}{lines}{time}{tail}", "python=", f"{settings['python']}\nset -- {_quoted(job)}"
    )


def submit(script: str, path: Path) -> str:
    """Writes the script to `path`, a new file, and hands it to sbatch; returns the number of the job.

    Raises:
        UserError: this machine has no sbatch, or sbatch refuses the job; then no file is left.
    """
    if shutil.which("sbatch") is None:
        raise UserError(
            "there is no sbatch on this machine: start on a login node of the cluster, or give --dry-run to "
            "see the script"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("x", encoding="utf-8") as file:
        file.write(script)
    done = subprocess.run(["sbatch", "--parsable", str(path)], capture_output=True, text=True, check=False)
    job = done.stdout.strip().partition(";")[0]
    if done.returncode != 0 or not job.isdigit():
        path.unlink()
        said = " ".join((done.stderr or done.stdout).split()) or f"status {done.returncode}"
        raise UserError(f"sbatch refuses the job: {said}")
    return job


def _quoted(job: Job) -> str:
    return " ".join(shlex.quote(word) for word in job.words)


def _replace_line(text: str, start: str, value: str) -> str:
    """The text with the one line that begins with `start` set to `value`."""
    pattern = re.compile(rf"^{re.escape(start)}.*$", re.MULTILINE)
    text, found = pattern.subn(lambda match: start + value, text)
    assert found == 1, f"{SCRIPT} has {found} lines {start}"
    return text
