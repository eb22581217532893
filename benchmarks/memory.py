"""How the memory of the evaluators grows with the features, in bytes a number of features[N, D].

    python -m benchmarks.memory [--rows 20000 40000 80000] [--dim 256] [--program logistic ...]

Each evaluator runs on feature files of each size, in a process of its own, as its program would. What the
peak of the process (ru_maxrss) rises by after all imports and a small run is noted; the slope over N D and
the value at N = D = 0 are those of least squares. 4 is float32 features once. The last columns are the slope
at the size of ImageNet, 1,281,167 x 2048, in GiB. The logistic probe streams all sizes here, as it does with
large features. The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from siamtransfer.distributed.runtime import Runtime
from siamtransfer.utils.log import print_messages, say
from siamtransfer.utils.strict_json import to_json

IMAGENET = 1_281_167 * 2048
CLASSES, TEST_ROWS, SMALL = 10, 1000, 2000
ALONE = Runtime(torch.device("cpu"), torch.float32)


def run_logistic(train: str, test: str) -> None:
    """A strength of two, and the fit to all of train."""
    from siamtransfer.evaluation.linear import logistic, rows
    from siamtransfer.evaluation.linear.config import LinearConfig
    from siamtransfer.evaluation.linear.evaluate import evaluate

    logistic.KEPT_BYTES = 0
    rows.CHUNK_BYTES["cpu"], rows.LEAST_ROWS = 2**20, 256
    evaluate(LinearConfig(train_features=train, test_features=test, strengths=[1e-9, 1e-8]), ALONE)


def run_sweep(train: str, test: str) -> None:
    """Two learning rates, one epoch."""
    from siamtransfer.evaluation.linear.config import LinearConfig
    from siamtransfer.evaluation.linear.evaluate import evaluate

    options = LinearConfig(
        train_features=train, test_features=test, protocol="sweep", lrs=[0.1, 0.01], epochs=1
    )
    evaluate(options, ALONE)


def run_fewshot(train: str, test: str) -> None:
    """Five images a class, once."""
    from siamtransfer.evaluation.fewshot.config import FewshotConfig
    from siamtransfer.evaluation.fewshot.evaluate import evaluate

    options = FewshotConfig(train_features=train, test_features=test, shots=[5], strengths=[1e-4], repeats=2)
    evaluate(options, ALONE)


def run_svm(train: str, test: str) -> None:
    """One process, two costs by cross-validation, few iterations."""
    from siamtransfer.evaluation.svm import svm
    from siamtransfer.evaluation.svm.config import SvmConfig
    from siamtransfer.evaluation.svm.evaluate import evaluate

    svm.MAX_ITERATIONS = 3
    options = SvmConfig(train_features=train, test_features=test, one_hot=True, costs=[0.1, 1.0], jobs=1)
    evaluate(options, ALONE)


def run_diagnose(train: str, test: str) -> None:
    """All rows' spectrum and tolerance, a small sample for pairs and clusters."""
    from siamtransfer.evaluation.diagnostics.config import DiagnoseConfig
    from siamtransfer.evaluation.diagnostics.evaluate import evaluate

    options = DiagnoseConfig(train_features=train, test_features=test, sample=1000, restarts=1)
    evaluate(options, ALONE)


PROGRAMS: dict[str, Callable[[str, str], None]] = {
    "logistic": run_logistic,
    "sweep": run_sweep,
    "fewshot": run_fewshot,
    "svm": run_svm,
    "diagnose": run_diagnose,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 40_000, 80_000])
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--program", choices=PROGRAMS, nargs="+", default=list(PROGRAMS))
    parser.add_argument("--measure", metavar="FOLDER", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(measure(PROGRAMS[args.program[0]], Path(args.measure)))
        return
    print_messages()
    metrics: dict[str, float] = {}
    for name in args.program:
        peaks = [peak_of(name, rows, args.dim) for rows in args.rows]
        numbers = np.array(args.rows) * args.dim
        slope, constant = np.polyfit(numbers, peaks, 1)
        metrics |= {f"{name} bytes a number": float(slope), f"{name} at zero MiB": float(constant) / 2**20}
        metrics |= {f"{name} N={rows} MiB": peak / 2**20 for rows, peak in zip(args.rows, peaks, strict=True)}
        say(
            f"{name:10} {slope:6.2f} bytes a number, {constant / 2**20:6.1f} MiB at zero; "
            f"1,281,167 x 2048: {slope * IMAGENET / 2**30:6.1f} GiB"
        )
    print(to_json({"task": "benchmark/memory", "metrics": metrics, "protocol": vars(args)}))


def peak_of(program: str, rows: int, dim: int) -> int:
    """Bytes by which the peak of a process rises that runs `program` on train features[rows, dim]."""
    with tempfile.TemporaryDirectory() as folder:
        for name, n in (("train", rows), ("test", TEST_ROWS), ("small", SMALL)):
            generator = np.random.default_rng(n)
            features = generator.random((n, dim), dtype=np.float32)
            np.savez(Path(folder) / name, features=features, labels=np.arange(n) % CLASSES)
        command = [sys.executable, "-m", "benchmarks.memory", "--measure", folder, "--program", program]
        freed = os.environ | {"MALLOC_MMAP_THRESHOLD_": "262144"}  # goes back to the system at once
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=freed)
        return int(done.stdout)


def measure(run: Callable[[str, str], None], folder: Path) -> int:
    """Bytes by which this process's peak rises between a small run and the one of `folder`."""
    test = str(folder / "test.npz")
    run(str(folder / "small.npz"), test)
    before = peak()
    run(str(folder / "train.npz"), test)
    return peak() - before


def peak() -> int:
    """The most memory that this process has had, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
