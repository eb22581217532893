"""How long help, a mistake and a missing file take: CPU seconds of whole processes.

    python -m benchmarks.startup [--repeats 5]

Prints a table (the median of the repeats) and, last, one JSON line.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys

from siamtransfer.cli.main import PROGRAMS

CASES = {
    "--help": ["--help"],
    "an unknown option": ["--no-such-option", "3"],
    "a missing file": ["--config", "no/such.yaml"],
}


def cpu_seconds(words: list[str]) -> float:
    """CPU time of a whole process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "siamtransfer", *words]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measures every program and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5, help="runs of each case (default: %(default)s)")
    repeats = parser.parse_args().repeats
    results: dict[str, float] = {}
    print(f"{'CPU seconds':16}" + "".join(f"{case:>20}" for case in CASES))
    for name in PROGRAMS:
        row = [
            statistics.median(cpu_seconds([name, *words]) for _ in range(repeats)) for words in CASES.values()
        ]
        results |= {f"{name}/{case}": value for case, value in zip(CASES, row, strict=True)}
        print(f"{name:16}" + "".join(f"{value:20.2f}" for value in row))
    words = ["pretrain", "--help", "simsiam"]
    results["pretrain/--help simsiam"] = statistics.median(cpu_seconds(words) for _ in range(repeats))
    print(f"pretrain --help simsiam: {results['pretrain/--help simsiam']:.2f}")
    print(json.dumps({"benchmark": "startup", "cpu_seconds": results}))


if __name__ == "__main__":
    main()
