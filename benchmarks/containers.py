"""How fast images are read from a folder, shards, a zip archive and parquet; how long a set takes to open,
and the memory of its names.

    python -m benchmarks.containers
    python -m benchmarks.containers --names 100000

Reading: JPEG files of 500 x 375 pixels, their bytes alone, in random order by one process; parquet, of which
a whole row group is read for one image, in the order of its rows too. Warm means that the files are in
memory; before a cold pass the kernel is asked to forget them (posix_fadvise), which it does for what no other
process maps, and on a virtual machine the host may still remember them. Opening: a tree of hard links and
shards of it, each in a process of its own; MiB is the peak while it is opened, fork MiB what a forked worker
makes its own by asking for every name. Prints tables and, last, one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data_path import cpu_name, write_photographs
from siamtransfer.data import open_images
from siamtransfer.data.packing import PackSettings, pack
from siamtransfer.records.record import record
from siamtransfer.utils.strict_json import to_json

CLASSES = 100
GROUP = 100  # rows of a row group, as Hugging Face writes images


def main() -> int:
    """Runs the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--files", type=int, default=4000, help="JPEG files to read; 0 leaves this part out (default 4000)"
    )
    parser.add_argument("--names", type=int, default=100_000, help="hard links to open (default 100000)")
    parser.add_argument("--open", nargs=2, metavar=("NAME", "ROOT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.open:
        print(json.dumps(opening(*arguments.open)))
        return 0
    metrics: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        if arguments.files:
            metrics |= measure_reading(Path(folder), arguments.files)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        metrics |= measure_opening(Path(folder), arguments.names)
    protocol = {"classes": CLASSES, "row_group": GROUP, "processes": 1, "files": arguments.files}
    print(to_json(record("containers", metrics, protocol | {"names": arguments.names}, cpu=cpu_name())))
    return 0


def measure_reading(base: Path, count: int) -> dict[str, float]:
    """Images a second from each container, cold and warm."""
    tree = write_tree(base / "folder", count)
    roots = {
        "folder": tree,
        "shards": base / "shards",
        "zip": base / "images.zip",
        "parquet": base / "parquet",
    }
    pack([open_images("folder", root=tree)], roots["shards"], PackSettings(10**8))
    write_zip(roots["zip"], tree)
    write_parquet(roots["parquet"], tree)
    os.sync()
    metrics = {}
    print(f"{'bytes of images a second':28}{'cold':>10}{'warm':>10}")
    for name, root in roots.items():
        orders = {"random": np.random.default_rng(0).permutation(count)}
        if name == "parquet":
            orders = {"random": orders["random"][:100], "in order": np.arange(count)}
        for kind, order in orders.items():
            speeds = []
            for temperature in ("cold", "warm"):
                images: Any = open_images(name, root=root)
                files = [root] if root.is_file() else [path for path in root.rglob("*") if path.is_file()]
                if temperature == "cold":
                    forget(files)
                start = time.perf_counter()
                for index in order.tolist():
                    images.encoded(index)
                speeds.append(len(order) / (time.perf_counter() - start))
                metrics[f"containers/{name}/{kind.replace(' ', '_')}/{temperature}/images_per_s"] = speeds[-1]
            print(f"{f'{name}, {kind}':28}{speeds[0]:10.0f}{speeds[1]:10.0f}", flush=True)
    return metrics


def measure_opening(base: Path, count: int) -> dict[str, float]:
    """Seconds and memory that opening takes, for the whole count and a half of it."""
    metrics: dict[str, float] = {}
    print(f"{'opening':28}{'names':>10}{'seconds':>10}{'fingerprint':>12}{'MiB':>10}{'fork MiB':>10}")
    for names in (count // 2, count):
        tree = base / f"folder-{names}"
        link_tree(tree, names)
        pack([open_images("folder", root=tree)], base / f"shards-{names}", PackSettings(2 * 10**7))
        for name, root in (("folder", tree), ("shards", base / f"shards-{names}")):
            words = [sys.executable, "-m", "benchmarks.containers", "--open", name, str(root)]
            found = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
            metrics |= {f"containers/{name}/open_{names}/{key}": value for key, value in found.items()}
            print(
                f"{name:28}{names:10}{found['seconds']:10.2f}{found['fingerprint_s']:12.2f}"
                f"{found['MiB']:10.1f}{found['fork_MiB']:10.1f}",
                flush=True,
            )
    return metrics


def opening(name: str, root: str) -> dict[str, float]:
    """Seconds to open a set and to compute its fingerprint, the memory that it adds at most, and the memory
    that a forked worker makes its own by asking for every name."""
    forget_peak()
    before, start = peak_memory(), time.perf_counter()
    images = open_images(name, root=root)
    opened = time.perf_counter()
    assert images.fingerprint
    ended, memory = time.perf_counter(), peak_memory() - before
    read, write = os.pipe()
    if os.fork() == 0:
        first = private_memory()
        for index in range(len(images)):
            images.describe(index)
        os.write(write, str(private_memory() - first).encode())
        os._exit(0)
    fork = int(os.read(read, 100))
    os.wait()
    return {
        "seconds": opened - start,
        "fingerprint_s": ended - opened,
        "MiB": memory / 2**20,
        "fork_MiB": fork / 2**20,
    }


def write_tree(root: Path, count: int) -> Path:
    """`count` JPEG files with different bytes in folders of classes."""
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        contents = [path.read_bytes() for path in write_photographs(Path(folder), 64)]
    for number in range(count):
        path = root / f"class{number % CLASSES:03}" / f"image{number:07}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents[number % len(contents)] + number.to_bytes(4, "little"))
    return root


def link_tree(root: Path, count: int) -> None:
    """`count` hard links to one small file, of which a file system allows 65,000 each."""
    for number in range(count):
        folder = root / f"n{number % CLASSES:08}"
        if number < CLASSES:
            folder.mkdir(parents=True)
            (folder / "first.jpg").write_bytes(b"\xff\xd8\xff" + number.to_bytes(4, "little"))
        else:
            (folder / f"n{number % CLASSES:08}_{number:07}.JPEG").hardlink_to(folder / "first.jpg")


def write_zip(path: Path, tree: Path) -> None:
    """The tree in one archive, stored."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(tree.rglob("*.jpg")):
            archive.write(file, file.relative_to(tree))


def write_parquet(root: Path, tree: Path) -> None:
    """The tree in one file, a struct of bytes and path a row."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    images: Any = open_images("folder", root=tree)
    root.mkdir()
    rows = [
        {"bytes": images.encoded(index), "path": images.relative_name(index)} for index in range(len(images))
    ]
    pq.write_table(
        pa.table({"image": rows, "label": images.labels}), root / "a.parquet", row_group_size=GROUP
    )


def forget(files: Sequence[Path]) -> None:
    """Asks the kernel to drop the files from its cache."""
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def peak_memory() -> int:
    """The most bytes that this process has had in memory since `forget_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def forget_peak() -> None:
    """Lets the kernel measure the peak from here on."""
    Path("/proc/self/clear_refs").write_text("5")


def private_memory() -> int:
    """Bytes in memory that only this process has."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


if __name__ == "__main__":
    sys.exit(main())
