"""Copies a folder of images, or of files that hold them, to a disk of this machine.

    python -m siamtransfer.launch.stage /shared/imagenet-shards /local/imagenet-shards

The copy gets its name when all names and sizes are those of the source. A copy that was stopped is continued.
A copy that is there is compared with its source, and used.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from siamtransfer.cli import run
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say

THREADS = 8  # files copied at once: small files wait for the shared disk, not for a processor
UNFINISHED = ".unfinished"  # the end of the name of a file that is being copied


@dataclass(frozen=True)
class Copy:
    """A complete copy: its files and bytes, and how many of the bytes were copied by this call."""

    files: int
    bytes: int
    copied_bytes: int


def stage(source: Path, target: Path) -> Copy:
    """Makes the folder `target` a copy of the folder `source`; other processes on this machine wait for it.

    Raises:
        UserError: there is no source, or it is empty; the target is something else than its copy; the disk
            has not enough space, or a file cannot be copied.
    """
    source, target = source.expanduser().resolve(), target.expanduser().resolve()
    if not source.is_dir():
        raise UserError(f"{source} is no folder that can be copied: name the data root of the images")
    if target == source or source in target.parents or target in source.parents:
        raise UserError(f"{target} and {source} lie in each other: name a folder of the machine's own disk")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.parent / f".{target.name}.lock"):
            return _stage(source, target)
    except OSError as error:
        raise UserError(f"{source} was not copied to {target}: {error}; start again to go on") from error


def _stage(source: Path, target: Path) -> Copy:
    wanted = _sizes(source)
    if not wanted:
        raise UserError(f"{source} holds no files: name the data root of the images")
    total = sum(wanted.values())
    if target.exists():
        _compare(source, wanted, target, "remove it, or name another folder")
        return Copy(len(wanted), total, 0)
    partial = target.with_name(f".{target.name}.partial")
    partial.mkdir(exist_ok=True)
    there = _sizes(partial)
    for name in there.keys() - wanted.keys():
        (partial / name).unlink()
    missing = [name for name, size in wanted.items() if there.get(name) != size]
    needed = sum(wanted[name] for name in missing)
    free = shutil.disk_usage(partial).free
    if needed > free:
        raise UserError(
            f"{target} needs {needed / 1e9:.1f} GB more, and its disk has {free / 1e9:.1f} GB free: name a "
            "folder of another disk, or read the images where they are"
        )
    for folder in {(partial / name).parent for name in missing}:
        folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(lambda name: _copy(source / name, partial / name), missing):
            pass
    _compare(source, wanted, partial, "the source changes while it is copied; start again")
    partial.rename(target)
    return Copy(len(wanted), total, needed)


def _copy(source: Path, target: Path) -> None:
    unfinished = target.with_name(target.name + UNFINISHED)
    shutil.copy2(source, unfinished)
    unfinished.replace(target)


def _compare(source: Path, wanted: dict[str, int], target: Path, remedy: str) -> None:
    """Raises UserError where the files of `target` are not those `wanted`, by name and size."""
    there = _sizes(target)
    if there == wanted:
        return
    name = min(name for name in there.keys() | wanted.keys() if there.get(name) != wanted.get(name))
    raise UserError(
        f"{target} is no copy of {source}: {name} has {there.get(name, 'no')} bytes instead of "
        f"{wanted.get(name, 'none')}; {remedy}"
    )


def _sizes(folder: Path) -> dict[str, int]:
    """The path below `folder` of every file, links followed, to its size in bytes."""
    sizes = {}
    for root, _, files in os.walk(folder, followlinks=True):
        for name in files:
            path = Path(root) / name
            sizes[path.relative_to(folder).as_posix()] = path.stat().st_size
    return sizes


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> None:
    """The program: SOURCE and TARGET from the command line."""
    if len(sys.argv) != 3:
        raise UserError("give two folders: python -m siamtransfer.launch.stage SOURCE TARGET")
    copy = stage(Path(sys.argv[1]), Path(sys.argv[2]))
    say(
        f"{sys.argv[2]}: {copy.files} files, {copy.bytes / 1e9:.3f} GB, of which "
        f"{copy.copied_bytes / 1e9:.3f} GB copied now"
    )


if __name__ == "__main__":
    run(lambda: main())
