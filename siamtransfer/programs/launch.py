"""Starts a program on all GPUs of this machine, or as a Slurm job.

    siamtransfer launch pretrain --config imagenet-resnet50-100ep --data.root /data/imagenet
    siamtransfer launch --gpus 4 linear runs/imagenet/checkpoint.pth
    siamtransfer launch --processes 2 pretrain                        two processes on the CPU
    siamtransfer launch --slurm --nodes 2 --time 24:00:00 --partition gpu pretrain --config …
    siamtransfer launch --slurm --stage '$SLURM_TMPDIR/images' pretrain … --data.root /shared/shards

The options of launch stand before the program's name, those of the program after it. Both are checked before
anything starts or is submitted. SIGTERM, SIGHUP, SIGUSR1 and Ctrl-C reach the run, which saves itself; the
exit status is that of the run. A Slurm job is queued again after such a stop, and goes on by itself.
docs/CLUSTER.md says what is promised.
"""

from __future__ import annotations

import difflib
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from siamtransfer.cli import Command, run
from siamtransfer.cli.main import program
from siamtransfer.cli.parser import Schema
from siamtransfer.config import PretrainConfig
from siamtransfer.utils.checks import at_least
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say

LAUNCHED = (
    "pretrain", "knn", "linear", "fewshot", "semisup", "svm", "diagnose", "gradients", "features",
    "segmentation", "retrieval", "copies", "robustness", "invariance",
)  # fmt: skip
"""The programs that compute on several ranks; `detection` starts its own processes."""

ANY_NUMBER = 10**12  # of images, which are counted by the run


@dataclass
class LaunchOptions:
    """Where a program runs, and on how many GPUs."""

    common: ClassVar[tuple[str, ...]] = (
        "gpus", "processes", "slurm", "nodes", "time", "partition", "account", "cpus_per_gpu", "stage",
        "sbatch", "max_restarts", "dry_run",
    )  # fmt: skip

    gpus: int | None = None
    """GPUs of a node, one process each; null: all of this machine (its CPU where there is none), 8 with
    --slurm."""
    processes: int | None = None
    """Processes on this machine, whatever GPUs it has."""
    slurm: bool = False
    """Submit a Slurm job."""
    nodes: int = 1
    """Nodes of the job."""
    time: str = "24:00:00"
    """Limit of the job: minutes, HH:MM:SS or D-HH:MM:SS."""
    partition: str | None = None
    """Slurm's partition."""
    account: str | None = None
    """Slurm's account."""
    cpus_per_gpu: int = 8
    """Processors of the job for each GPU."""
    stage: str | None = None
    """Copy the data root once a node, as this folder of its own disk, and read the images there; $VARIABLES
    of the job hold with --slurm."""
    sbatch: list[str] = field(default_factory=list, metadata={"append": True})
    """A further option of sbatch, such as qos=high; may be repeated."""
    max_restarts: int = 0
    """How often torchrun starts all processes again after a failure; a Slurm job repeats a mistake too."""
    dry_run: bool = False
    """Print the script or the command, and start nothing."""

    def check(self) -> None:
        """Raises UserError for a number out of its range and for options that exclude each other."""
        for name in ("gpus", "processes", "nodes", "cpus_per_gpu"):
            at_least(f"--{name.replace('_', '-')}", getattr(self, name), 1)
        at_least("--max-restarts", self.max_restarts, 0)
        if self.processes is not None and (self.gpus is not None or self.slurm):
            raise UserError("--processes is for this machine's CPU: leave out --gpus and --slurm, or it")
        if not self.slurm:
            for name in ("nodes", "time", "partition", "account", "cpus_per_gpu", "sbatch"):
                if getattr(self, name) != getattr(LaunchOptions(), name):
                    raise UserError(f"--{name.replace('_', '-')} is an option of Slurm jobs: add --slurm")


@dataclass(frozen=True)
class Inner:
    """The program that is launched: its words, its data root, whether it has --resume."""

    name: str
    words: tuple[str, ...]
    root: str | None
    resumes: bool
    config: object

    def check_ranks(self, ranks: int) -> None:
        """Raises UserError where pretraining cannot be shared among so many ranks."""
        if isinstance(self.config, PretrainConfig):
            self.config.optim.check(ranks, images=ANY_NUMBER)


class LaunchCommand(Command[LaunchOptions]):
    """The command whose words are its own options, a program, and that program's words."""

    def __call__(self, argv: Sequence[str] | None = None) -> dict[str, Any] | None:
        """Launches; with status 0 it returns, else the process ends with that of the run."""
        words = [str(word) for word in (sys.argv[1:] if argv is None else argv)]
        own, rest = split_words(words)
        options = self.parse(own)
        options.check()
        inner = read_inner(rest)
        if options.slurm:
            launch_job(options, inner)
        else:
            status = launch_here(options, inner)
            if status != 0:
                sys.exit(status)
        return None


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words before the program's name, and the rest from it on."""
    options = Schema(LaunchOptions).options
    place = 0
    while place < len(words) and words[place].startswith("-"):
        name, equals, _ = words[place].lstrip("-").partition("=")
        key = name.replace("-", "_")
        option = options.get(key)
        switch = (option is not None and option.is_bool) or key.startswith("no_") or key in ("h", "help")
        following = words[place + 1] if place + 1 < len(words) else ""
        takes_one = following.lower() in ("true", "false") if switch else not equals
        place += 2 if takes_one else 1
    return list(words[:place]), list(words[place:])


def read_inner(words: Sequence[str]) -> Inner:
    """The program and its words, parsed and checked by its own configuration.

    Raises:
        UserError: there is no such program, it is not launched, or a word of it is wrong.
    """
    known = ", ".join(LAUNCHED)
    if not words:
        raise UserError(f"name the program: siamtransfer launch [OPTIONS] PROGRAM …, one of {known}")
    name = words[0]
    if name not in LAUNCHED:
        near = difflib.get_close_matches(name, LAUNCHED, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"launch cannot start {name!r}{hint} (it starts {known})")
    command = program(name)
    config = command.parse(words[1:])
    config.check()
    root = getattr(config.data, "root", None)
    if root is not None and not Path(root).expanduser().exists():
        raise UserError(f"data.root {root} does not exist on this machine: name the folder of the images")
    return Inner(name, tuple(words[1:]), root, "--resume" in command.flags(), config)


def launch_here(options: LaunchOptions, inner: Inner) -> int:
    """Runs the program on this machine; returns its exit status."""
    from siamtransfer.launch.local import processes_for, run_here, torchrun_command
    from siamtransfer.launch.stage import stage

    processes = processes_for(options.gpus, options.processes)
    inner.check_ranks(processes)
    words = list(inner.words)
    if options.stage is not None:
        words += ["--data.root", options.stage]
    if options.max_restarts and inner.resumes:
        words.insert(0, "--resume")
    command = torchrun_command(inner.name, words, processes, options.max_restarts)
    if options.dry_run:
        print(shlex.join(command))
        return 0
    if options.stage is not None:
        stage(Path(_root_to_copy(inner)), Path(options.stage))
    return run_here(command, processes)


def launch_job(options: LaunchOptions, inner: Inner) -> None:
    """Submits the program as a job, and says its number and where its log is."""
    from siamtransfer.launch.slurm import Job, job_script, submit

    gpus = options.gpus or 8
    inner.check_ranks(options.nodes * gpus)
    job = Job(
        inner.name, inner.words, inner.resumes, sys.executable, options.nodes, gpus,
        options.cpus_per_gpu, options.time, options.partition, options.account, tuple(options.sbatch),
        options.max_restarts,
        None if options.stage is None else (_root_to_copy(inner), options.stage),
    )  # fmt: skip
    job.check()
    script = job_script(job)
    if options.dry_run:
        print(script, end="")
        return
    path = Path("runs") / f"{inner.name}-{datetime.now():%Y%m%d-%H%M%S-%f}.slurm"
    number = submit(script, path)
    say(f"job {number} is submitted ({path}); its log is {Path(f'slurm-{number}.log').absolute()}")
    say("this folder, the images and the run's folder must be on disks that all nodes share")


def _root_to_copy(inner: Inner) -> str:
    if inner.root is None:
        raise UserError("--stage copies the data root: give --data.root FOLDER after the program's name")
    return str(Path(inner.root).expanduser().absolute())


main = LaunchCommand("launch", LaunchOptions, lambda options: None, __doc__)

if __name__ == "__main__":
    run(main)
