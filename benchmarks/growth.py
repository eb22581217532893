"""What grows with steps, starts, cells, records and images: seconds, bytes and memory.

    python -m benchmarks.growth [--rows 500000] [--starts 1000] [--cells 10000] [--records 10000]
        [--names 200000]

Prints a table and, last, one JSON line. Each part makes its own files in a temporary folder; memory is what
the process has taken on top of what it had before the part.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from siamtransfer.data.folders import ClassFolder
from siamtransfer.leaderboard.index import update_index
from siamtransfer.records.record import record
from siamtransfer.suites.folder import SuiteFolder
from siamtransfer.trackers.tensorboard_events import TensorBoardRun
from siamtransfer.training.journal import Journal
from siamtransfer.training.journal_rows import checksum_line, read_rows
from siamtransfer.utils.strict_json import to_json

MIB = 2**20
NUMBERS = ("loss", "lr", "health/std", "health/effective_rank", "health/centre_norm", "health/view_cosine")


def journal(folder: Path, rows: int) -> Iterator[tuple[str, float]]:
    """A run of so many rows that goes on, and its curves."""
    crc = 0
    with (folder / "metrics.jsonl").open("wb") as file, (folder / "metrics.jsonl.crc32").open("wb") as sums:
        for step in range(1, rows + 1):
            line = to_json({"step": step} | dict.fromkeys(NUMBERS, step / 7000000.0)).encode()
            crc = zlib.crc32(line, crc)
            file.write(line + b"\n")
            sums.write(checksum_line(step, crc) + b"\n")
        yield "MiB of metrics.jsonl", file.tell() / MIB
    with timed() as found:
        opened = Journal(folder, start=rows - 1, tensorboard=False)
    yield from found("going on after the last row but one")
    with timed() as found:
        opened.latest("loss")
        opened.latest("is not there")
    yield from found("the last number of a name, and of none")
    opened.close()
    with timed() as found:
        read_rows(folder / "metrics.jsonl")
    yield from found("all rows, for a report")


def events(folder: Path, starts: int) -> Iterator[tuple[str, float]]:
    """A run that is stopped after every row, seen by TensorBoard."""
    TensorBoardRun(folder).close()  # imports its packages
    with timed() as found:
        for start in range(starts):
            run = TensorBoardRun(folder, start)
            run.write(start + 1, dict.fromkeys(NUMBERS, 0.5))
            run.close()
    yield from found("all starts")
    yield "files", len(list(folder.iterdir()))
    yield "MiB of events", sum(file.stat().st_size for file in folder.iterdir()) / MIB


def suite(folder: Path, cells: int) -> Iterator[tuple[str, float]]:
    """The note of one more cell of a suite."""
    with SuiteFolder(folder, "many") as opened:
        for number in range(cells):
            name = f"backbone-{number // 20}/knn-set-{number % 20}"
            words = [
                "knn",
                f"weights/{number // 20}.pth",
                "--data.name",
                f"set-{number % 20}",
                "--k",
                "5",
                "20",
            ]
            opened.state.planned[name] = words
            opened.state.cells[name] = {
                "identity": {"k": [5, 20], "data.name": f"set-{number % 20}", "temperature": 0.07},
                "weights": f"{number:064x}",
                "images": {"train": f"{number:064x}", "test": f"{number:064x}"},
                "files": {f"{name}.json": f"{number:064x}", f"{name}.npz": f"{number:064x}"},
                "seconds": 12.345,
                "time": "2026-01-01T00:00:00+00:00",
            }
        with timed() as found:
            opened.save()
        yield from found("a save")
        yield "MiB of suite.json", opened.file.stat().st_size / MIB


def index(folder: Path, records: int) -> Iterator[tuple[str, float]]:
    """An index that is made, and one to which a record is added."""

    protocol = {"k": [20], "test": {"name": "set", "images": 10_000}}
    empty = record("knn", {}, protocol, data_fingerprint="0" * 64)

    def write(number: int) -> None:
        metrics = {"knn/k=20/T=0.07/top1": 50.0 + number % 40}
        provenance = empty["provenance"] | {"backbone": f"{number}.pth", "weights_digest": f"{number:064x}"}
        document = empty | {"metrics": metrics, "provenance": provenance}
        (folder / f"{number}.json").write_text(to_json(document) + "\n", encoding="utf-8")

    for number in range(records):
        write(number)
    with timed() as found:
        update_index(folder)
    yield from found("a new index")
    write(records)
    with timed() as found:
        update_index(folder)
    yield from found("one more record")
    yield "MiB of index.json", (folder / "index.json").stat().st_size / MIB


def names(folder: Path, count: int) -> Iterator[tuple[str, float]]:
    """A tree of so many empty files of 100 classes, and its fingerprint."""
    for number in range(100):
        below = folder / f"n{number:08}"
        below.mkdir()
        for image in range(number, count, 100):
            os.mknod(below / f"{below.name}_{image}.JPEG")
    with timed() as found:
        images = ClassFolder(folder)
    yield from found("a list of the tree")
    yield "MiB of names", sum(len(images.relative_name(index)) for index in range(count)) / MIB
    with timed() as found:
        images.fingerprint  # noqa: B018 (the first use looks at every file)
    yield from found("its fingerprint")


PARTS: dict[str, Callable[[Path, int], Iterator[tuple[str, float]]]] = {
    "rows": journal,
    "starts": events,
    "cells": suite,
    "records": index,
    "names": names,
}
SIZES = {"rows": 500_000, "starts": 1000, "cells": 10_000, "records": 10_000, "names": 200_000}


class timed:
    """CPU seconds and MiB of a block; called afterwards, it yields them under a name."""

    def __enter__(self) -> timed:
        self._memory, self._began = _peak(), time.process_time()
        return self

    def __exit__(self, *exc: object) -> None:
        self._seconds, self._taken = time.process_time() - self._began, _peak() - self._memory

    def __call__(self, name: str) -> Iterator[tuple[str, float]]:
        yield f"{name}: CPU seconds", self._seconds
        yield f"{name}: MiB of memory", self._taken


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(sizes: dict[str, int]) -> dict[str, dict[str, float]]:
    """The numbers of every part that has a size above 0."""
    found: dict[str, dict[str, float]] = {}
    for name, part in PARTS.items():
        if sizes[name]:
            with tempfile.TemporaryDirectory() as folder:
                found[name] = dict(part(Path(folder), sizes[name]))
    return found


def main() -> None:
    """Measures what is asked for and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, size in SIZES.items():
        parser.add_argument(f"--{name}", type=int, default=size, help="default: %(default)s; 0 for none")
    sizes: dict[str, Any] = vars(parser.parse_args())
    results = measure(sizes)
    for name, numbers in results.items():
        print(f"{sizes[name]} {name}")
        for what, value in numbers.items():
            print(f"  {what:60}{value:10.3g}")
    print(json.dumps({"benchmark": "growth", "sizes": sizes, "results": results}))


if __name__ == "__main__":
    main()
