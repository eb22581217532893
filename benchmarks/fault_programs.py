"""Signals, kills and lost workers at random moments of whole programs: how they end, and what they leave.

    python -m benchmarks.fault_programs --minutes 10
    python -m benchmarks.fault_programs --seed 7 --trials 1          the same trial again

A trial starts a program (a training, an evaluator, a suite, a pass over a folder) and at a moment drawn from
its seed sends it, or its whole process group, a signal; kills it; kills one of its processes; or halts it for
two seconds. It must end within LIMIT seconds with the right status, say no traceback, and leave no process
and, unless it was killed, no half-written file. The same command, with --resume where the program has it,
then ends well, with the metrics of the command to which nothing happened. Each trial is printed with its
seed; the exit status is 1 where one failed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.pictures import write_parts  # noqa: E402
from support.signalled import (  # noqa: E402
    Program,
    descendants,
    kill_all,
    launch_program,
    survivors,
    unfinished_files,
)
from support.small_runs import TINY  # noqa: E402

LIMIT = 30.0  # seconds until the end, on a busy machine
LEAVING = 5.0  # seconds after that, in which the processes that it has started end
NETWORK = "random:resnet18:width=16:stem=small"
IMAGES = ["--data.name=folder", "--device=cpu", "--data.workers=2"]
FAULTS = (
    *("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGINT of the group"),
    *("SIGTERM of the group", "SIGHUP of the group", "kill", "SIGQUIT", "lost worker", "pause"),
)
SUITE = """
sets: {parts: {name: folder, root: ROOT}}
tasks:
  knn: {options: {k: 3}}
  linear: {options: {protocol: sweep, epochs: 2, lrs: [0.1]}}
"""


@dataclass(frozen=True)
class Kind:
    """A program: its words, where OUT stands for a folder of the trial and ROOT for the images, and those
    with which it goes on."""

    words: tuple[str, ...]
    more: tuple[str, ...] = ()


KINDS = {
    "pretrain": Kind(
        ("pretrain", *TINY, "--data.workers=2", "--optim.epochs=8", "--run.dir=OUT/run"), ("--resume",)
    ),
    "knn": Kind(("knn", NETWORK, *IMAGES, "--data.root=ROOT", "--cache=OUT/cache", "--k=3")),
    "linear": Kind(
        (
            *("linear", NETWORK, *IMAGES, "--data.root=ROOT", "--cache=none", "--protocol=moco"),
            *("--epochs=2", "--batch_size=8", "--run=OUT/run"),
        ),
        ("--resume",),
    ),
    "semisup": Kind(
        (
            *("semisup", NETWORK, *IMAGES, "--data.root=ROOT", "--cache=none", "--protocol=ours"),
            *("--percent=100", "--epochs=2", "--batch_size=8", "--run=OUT/run"),
        ),
        ("--resume",),
    ),
    "features": Kind(("features", NETWORK, "OUT/features.npz", *IMAGES, "--data.root=ROOT")),
    "embed": Kind(("embed", NETWORK, "ROOT", "OUT/table.csv", "--device=cpu", "--data.workers=2")),
    "suite": Kind(("suite", f"a={NETWORK}", "--config=OUT/suite.yaml", "--out=OUT/suite")),
}


def command(kind: Kind, images: Path, out: Path, *, again: bool = False) -> list[str]:
    """The words of a program in the folder `out`, which is made."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "suite.yaml").write_text(SUITE.replace("ROOT", str(images)))
    words = (*kind.words, *(kind.more if again else ()))
    return [word.replace("OUT", str(out)).replace("ROOT", str(images)) for word in words]


def undisturbed(name: str, images: Path, folder: Path) -> tuple[float, dict[str, float]]:
    """How long a program takes to which nothing happens, and its metrics."""
    began = time.monotonic()
    program = launch_program(command(KINDS[name], images, folder / name), folder / f"{name}-whole")
    status = program.ended(400)  # a first start imports all, on a busy machine for minutes
    assert status == 0, f"{name} ended with {status}: {program.said[-2000:]}"
    return time.monotonic() - began, metrics_of(program)


def metrics_of(program: Program) -> dict[str, float]:
    """The metrics of the record on stdout."""
    found: dict[str, float] = json.loads(program.out.read_text().splitlines()[-1])["metrics"]
    return {key: value for key, value in found.items() if "second" not in key and "suite/" not in key}


def trial(
    seed: int, folder: Path, images: Path, wholes: dict[str, tuple[float, dict[str, float]]]
) -> tuple[str, str]:
    """One trial of a program of `wholes` (see `undisturbed`) in `folder`: what happened, and what is wrong
    ("" where nothing is)."""
    draw = random.Random(seed)
    name, fault = draw.choice(sorted(wholes)), draw.choice(FAULTS)
    seconds, metrics = wholes[name]
    after = draw.uniform(0.02, seconds)
    kind, what = KINDS[name], f"{name}, {fault} after {after:.2f} s"
    program = launch_program(command(kind, images, folder / "out"), folder / "first")
    time.sleep(after)
    below = descendants(program.pid) if program.process.is_alive() else set()
    allowed = strike(program, fault, max((pid for pid, _ in below), default=0))
    status = program.ended(LIMIT + (seconds if fault == "pause" else 0))
    left = survivors(below, LEAVING)
    names = [name_of(pid) for pid, _ in left]
    kill_all(left)
    wrong = []
    if status not in allowed:
        wrong.append(f"it ended with {status}: {program.said[-300:]}")
    if "Traceback" in program.said:
        wrong.append(f"a traceback: {program.said[-1500:]}")
    if left:
        wrong.append(f"left: {names}")
    if fault not in ("kill", "SIGQUIT") and (files := unfinished_files(folder / "out")):
        wrong.append(f"half-written: {files}")
    if status != 0 and not wrong:
        again = launch_program(command(kind, images, folder / "out", again=True), folder / "again")
        if (status := again.ended(60 + 3 * seconds)) != 0:
            wrong.append(f"the command given again ended with {status}: {again.said[-500:]}")
        elif metrics_of(again) != metrics:
            wrong.append(f"the metrics are {metrics_of(again)} instead of {metrics}")
    return what, "; ".join(wrong)


def name_of(pid: int) -> str:
    """What a process is, for people."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")[-100:].strip()
    except OSError:
        return "one that has ended meanwhile"


def strike(program: Program, fault: str, worker: int) -> tuple[int, ...]:
    """Does `fault` to a program, and returns the statuses with which it may end; 0 is one of them, for it may
    have been at its end."""
    pid = program.pid
    if not program.process.is_alive():
        return (0,)
    if fault == "pause":
        os.kill(pid, signal.SIGSTOP)
        time.sleep(2)
        os.kill(pid, signal.SIGCONT)
        return (0,)
    if fault == "lost worker":
        if worker:
            os.kill(worker, signal.SIGKILL)
        return (0, 2, 1)  # a cell of a suite is 2 as well; one that only ends the others is missed by none
    if fault in ("kill", "SIGQUIT"):
        number = signal.SIGKILL if fault == "kill" else signal.SIGQUIT
        os.kill(pid, number)
        return (0, -number)
    number = signal.Signals[fault.split()[0]]
    (os.killpg if fault.endswith("group") else os.kill)(pid, number)
    return (0, 128 + number, -number)  # before the program has taken signals, the system's own end


def main() -> None:
    """Makes trials for `--minutes`, or `--trials` of them, and prints how many of each there were."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--trials", type=int, default=10**9)
    parser.add_argument("--seed", type=int, default=0, help="of the first trial; the next has the next seed")
    parser.add_argument("--programs", nargs="+", choices=sorted(KINDS), default=sorted(KINDS))
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    failed = seed = 0
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary)
        os.environ["XDG_CACHE_HOME"] = str(base / "cache")
        write_parts(base / "images")
        wholes = {name: undisturbed(name, base / "images", base / "wholes") for name in options.programs}
        deadline = time.monotonic() + 60 * options.minutes
        for seed in range(options.seed, options.seed + options.trials):
            if time.monotonic() > deadline:
                break
            what, wrong = trial(seed, base / f"trial{seed}", base / "images", wholes)
            counts[what.split(", ")[1].split(" after")[0]] += 1
            failed += bool(wrong)
            print(f"seed {seed}: {what}: {wrong or 'ended well'}", flush=True)
    print(f"{counts.total()} trials, {failed} failed; {dict(counts)}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
