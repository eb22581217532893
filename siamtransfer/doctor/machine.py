"""Checks of the machine: cores, memory, shared memory, open files, disk."""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from siamtransfer.distributed.runtime import cpu_count
from siamtransfer.doctor.findings import Finding, advised, check, judged, measured
from siamtransfer.doctor.workbench import GIB, Workbench
from siamtransfer.utils.text import printable
from siamtransfer.views.shared_memory import loader_shared_memory

TWO_VIEWS = (224, 224)
MULTI_CROP = (224, 224, *(96,) * 8)
IMAGES_OF_A_RANK = 64  # of a batch of 512 on eight GPUs
WORKERS = 8  # the most that a rank starts by itself
ENOUGH_MEMORY = 16.0  # GiB
ENOUGH_DISK = 20.0  # GiB, for checkpoints and the feature cache
LEAST_DISK = 2.0
ENOUGH_FILES = 4096
CGROUP = Path("/sys/fs/cgroup")


@check("cores")
def check_cores(bench: Workbench) -> Iterator[Finding]:
    """Cores that this process may use, against a container's quota."""
    cores, quota = cpu_count(), cgroup_cores()
    yield measured(
        "cores", cores, f"{cores} of {os.cpu_count()}, torch computes with {torch.get_num_threads()}"
    )
    if quota is not None:
        text = f"the container may use {quota:g} of {cores} cores"
        cure = f"set --data.workers and --hardware.threads to {max(1, int(quota))} at most in all"
        yield advised("cores/quota", quota >= cores, text, cure, quota)


@check("memory")
def check_memory(bench: Workbench) -> Iterator[Finding]:
    """Memory of the machine or of its container."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    limit = cgroup_memory()
    usable = total if limit is None else min(total, limit)
    yield advised(
        "memory_GiB",
        usable >= ENOUGH_MEMORY,
        f"{usable:.1f} GiB"
        + ("" if limit is None or limit >= total else f" of {total:.1f} (the container's limit)"),
        f"ImageNet wants {ENOUGH_MEMORY:g} GiB a rank; docs/SCALE.md says which program takes what",
        usable,
    )


@check("shared_memory")
def check_shared_memory(bench: Workbench) -> Iterator[Finding]:
    """/dev/shm, through which workers hand over batches."""
    folder = Path("/dev/shm")
    if not folder.is_dir():
        yield Finding("shared_memory_GiB", "INFO", "there is no /dev/shm here")
        return
    size, ranks = shutil.disk_usage(folder).total / GIB, max(1, torch.cuda.device_count())
    least, enough = (
        ranks * loader_shared_memory(sides, IMAGES_OF_A_RANK, WORKERS) / GIB
        for sides in (TWO_VIEWS, MULTI_CROP)
    )
    text = (
        f"/dev/shm has {size:.2f} GiB; {WORKERS} workers on each of {ranks} ranks, {IMAGES_OF_A_RANK} images "
        f"each, take {least:.2f} GiB for two views and {enough:.2f} for multi-crop"
    )
    room = max(1, round(1.25 * enough + 0.5))
    cure = f"docker run --shm-size {room}g (or --ipc host), or fewer --data.workers"
    if size < least and torch.cuda.is_available():
        yield Finding("shared_memory_GiB", "FAIL", f"{text}: {cure}", size)
    else:
        yield advised("shared_memory_GiB", size >= enough, text, cure, size)


@check("open_files")
def check_open_files(bench: Workbench) -> Iterator[Finding]:
    """The limit of open files; each tensor that a worker hands over takes one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = "unlimited" if hard == resource.RLIM_INFINITY else str(hard)
    enough = soft == resource.RLIM_INFINITY or soft >= ENOUGH_FILES
    yield advised(
        "open_files", enough, f"{soft} of at most {most}", f"ulimit -n {ENOUGH_FILES} or more", soft
    )


@check("disk")
def check_disk(bench: Workbench) -> Iterator[Finding]:
    """Room and permission where runs go."""
    runs = Path(bench.config.runs)
    folder = next(each for each in [runs.absolute(), *runs.absolute().parents] if each.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        text = f"{printable(runs)} cannot be written ({error.strerror}): take another --run.dir"
        yield Finding("disk/writable", "FAIL", text)
        return
    yield judged("disk/writable", True, f"{printable(runs)} can be written")
    free = shutil.disk_usage(folder).free / GIB
    text, cure = f"{free:.1f} GiB free for {printable(runs)}", "free some, or take --run.dir on another disk"
    if free < LEAST_DISK:
        yield Finding("disk/free_GiB", "FAIL", f"{text}: {cure}", free)
    else:
        yield advised("disk/free_GiB", free >= ENOUGH_DISK, text, cure, free)


@check("processes")
def check_processes(bench: Workbench) -> Iterator[Finding]:
    """Workers start, and how."""
    method = multiprocessing.get_start_method()
    worker = multiprocessing.Process(target=os.getpid)
    worker.start()
    worker.join(60)
    good = worker.exitcode == 0
    text = f"a worker started by {method} ends with {worker.exitcode}"
    yield judged(
        "processes/start", good, text + ("" if good else ": see limits of processes (ulimit -u)"), method
    )


def cgroup_cores() -> float | None:
    """The container's quota in cores; None where there is none."""
    try:
        quota, period = (CGROUP / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)


def cgroup_memory() -> float | None:
    """The container's limit of memory in GiB; None where there is none."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = (CGROUP / name).read_text().strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < 2**60:
            return int(text) / GIB
    return None
