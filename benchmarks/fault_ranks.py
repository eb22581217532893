"""Two and four gloo ranks with delays, kills and signals at random moments: no hang, and a resume to the bit.

    make faults-ranks                                           about ten minutes on one core
    python -m benchmarks.fault_ranks --minutes 2 --seed 7       the same trials again

A trial starts the ranks of a small run. At a moment drawn from its seed it kills a rank, sends one a signal,
or halts one for longer than the time-out or for less. All ranks must have ended within the time-out and GRACE
seconds after it. The run is resumed until it is whole. Its weights, optimizer and metric rows must equal
those of a run that nothing happened to. The program prints each trial with its seed, and exits with 1 where
one failed.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.small_runs import Run, differences, launch_ranks, newest, rows  # noqa: E402

TIMEOUT = 6.0  # seconds, of collectives
GRACE = 60.0  # for the start of the interpreter, the step in progress and the save, on a busy machine
OPTIONS = [
    "--optim.epochs=8", "--monitor.knn_every=2", "--checkpoint.every_steps=3",
    f"--hardware.timeout_minutes={TIMEOUT / 60}",
]  # fmt: skip
FREE = ("config.run.dir",)
FAULTS = ("kill", "SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "short pause", "long pause")


def trial(
    seed: int,
    folder: Path,
    wholes: dict[int, Path],
    *,
    numbers: Sequence[int] = (2, 2, 4),
    faults: Sequence[str] = FAULTS,
) -> tuple[str, str]:
    """One trial: the fault in a few words, and what is wrong ("" where nothing is).

    `wholes` are the folders of the undisturbed runs by their number of ranks. The trial draws its number of
    ranks from `numbers` and what happens from `faults`.
    """
    draw = random.Random(seed)
    ranks, fault = draw.choice(numbers), draw.choice(faults)
    victim, after = draw.randrange(ranks), draw.uniform(0, wholes_seconds(wholes[ranks]))
    name = f"{ranks} ranks, {fault} of rank {victim} after {after:.2f} s"
    runs = launch_ranks(folder, *OPTIONS, world_size=ranks)
    time.sleep(after)
    strike(runs[victim], fault)
    deadline = time.monotonic() + TIMEOUT + GRACE
    statuses = [ended(run, deadline) for run in runs]
    if None in statuses:
        return name, f"still running {TIMEOUT + GRACE:g} s later: {statuses}"
    for _ in range(2):
        if all(status == 0 for status in statuses):
            break
        again = launch_ranks(folder, *OPTIONS, "--resume", world_size=ranks)
        deadline = time.monotonic() + 2 * GRACE
        statuses = [ended(run, deadline) for run in again]
    if any(statuses):
        return name, f"the resumed run ended with {statuses}"
    wrong = differences(newest(folder), newest(wholes[ranks]), free=FREE)
    if rows(folder) != rows(wholes[ranks]):
        wrong.append("metrics.jsonl")
    return name, ", ".join(wrong)


def strike(run: Run, fault: str) -> None:
    """Does `fault` to a rank; one that has ended already is left alone."""
    process = run.process
    if not process.is_alive():
        return
    if fault == "kill":
        process.kill()
    elif fault in ("short pause", "long pause"):
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(TIMEOUT / 4 if fault == "short pause" else 2 * TIMEOUT)
        os.kill(process.pid, signal.SIGCONT)
    else:
        os.kill(process.pid, signal.Signals[fault])


def ended(run: Run, deadline: float) -> int | None:
    """The exit status, or None where the process has not ended by `deadline`; it is killed then."""
    run.process.join(max(0.0, deadline - time.monotonic()))
    status: int | None = run.process.exitcode
    if status is None:
        run.process.kill()
        run.process.join()
    return status


def wholes_seconds(folder: Path) -> float:
    """How long the undisturbed run took."""
    return float((folder.parent / f"{folder.name}.seconds").read_text())


def undisturbed(folder: Path, ranks: int) -> Path:
    """The folder of a run to which nothing happens; beside it is how long it took."""
    began = time.monotonic()
    runs = launch_ranks(folder, *OPTIONS, world_size=ranks)
    statuses = [run.wait(300) for run in runs]
    assert not any(statuses), [run.said for run in runs]
    (folder.parent / f"{folder.name}.seconds").write_text(str(time.monotonic() - began))
    return folder


def main() -> None:
    """Makes trials for `--minutes` and prints how many of each fault there were."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the first trial; the next has the next seed")
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    failed = 0
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary)
        os.environ["XDG_CACHE_HOME"] = str(base / "cache")  # which the runs are handed
        wholes = {ranks: undisturbed(base / f"whole{ranks}", ranks) for ranks in (2, 4)}
        deadline, seed = time.monotonic() + 60 * options.minutes, options.seed
        while time.monotonic() < deadline:
            name, wrong = trial(seed, base / f"run{seed}", wholes)
            counts[name.split(", ")[1].split(" of rank")[0]] += 1
            failed += bool(wrong)
            print(f"seed {seed}: {name}: {wrong or 'resumed to the bit'}", flush=True)
            seed += 1
    print(f"{counts.total()} trials, {failed} failed; {dict(counts)}; seeds {options.seed} to {seed - 1}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
