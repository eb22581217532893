"""The stages of the rehearsal. Each yields the rows of its table; a row that did not hold has `failed`."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.rehearsal.configurations import (
    ROOT,
    SIMSIAM,
    Rehearsal,
    configuration_names,
    pretrain_words,
    rows,
    run_until,
    share_of,
)
from benchmarks.rehearsal.device_memory import count_device_memory
from benchmarks.rehearsal.tree import build_tree, write_list
from benchmarks.rehearsal.watch import Watched, run_watched
from siamtransfer.programs.pretrain import main as pretrain_program

Row = dict[str, Any]
STOPPED = (143, 1)  # the program's own exit status after SIGTERM; torchrun's for stopped ranks
DEVICE_LIMIT = 24.0  # GiB of the device that the configurations' shares are counted against
NAMES_ON_PAPER = 14_000_000
LISTING = """
import json, sys, time
from siamtransfer.data import open_images

def resident():  # KiB
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))

start, before = time.monotonic(), resident()
images = open_images("imagenet", root=sys.argv[1], split=sys.argv[2])
listed = time.monotonic()
images.fingerprint
done = time.monotonic()
print(json.dumps({"images": len(images), "list_s": listed - start, "fingerprint_s": done - listed,
                  "kept_MiB": (resident() - before) / 1024}))
"""


def list_tree(rehearsal: Rehearsal) -> Iterator[Row]:
    """Builds the tree, and opens both of its splits in processes of their own."""
    start = time.monotonic()
    build_tree(rehearsal.tree, train=rehearsal.images, val=rehearsal.queries, classes=rehearsal.classes)
    yield {"what": "tree written", "seconds": time.monotonic() - start}
    measured = []
    for split in ("test", "train"):
        log = rehearsal.log(f"listing-{split}")
        command = [sys.executable, "-c", LISTING, str(rehearsal.tree), split]
        watched = run_watched(command, log, limit=rehearsal.limit)
        measured.append(_row(f"listing {split}", watched, (0,), **_last_json(log.read_text())))
        yield measured[-1]
    small, large = measured
    if "images" in small and "images" in large:
        yield _on_paper(small, large)


def _on_paper(small: Row, large: Row) -> Row:
    """Listing and fingerprint of NAMES_ON_PAPER names by the slopes between two measured sets."""
    names = large["images"] - small["images"]
    slope = {key: (large[key] - small[key]) / names for key in ("list_s", "fingerprint_s", "kept_MiB")}
    grown = NAMES_ON_PAPER - large["images"]
    return {"what": f"{NAMES_ON_PAPER} names, calculated"} | {
        key: large[key] + grown * value for key, value in slope.items()
    }


def start_configurations(rehearsal: Rehearsal, names: list[str]) -> Iterator[Row]:
    """Every configuration: a few steps, SIGTERM, resume, a step more. The device's memory is counted at full
    width."""
    for name in names or configuration_names():
        shutil.rmtree(rehearsal.folder / "runs" / name, ignore_errors=True)
        words = pretrain_words(rehearsal, name, run=name)
        first = run_until(rehearsal, words, run=name, log=name, steps=rehearsal.steps)
        again = run_until(
            rehearsal, [*words, "--resume"], run=name, log=f"{name}-resumed", steps=rehearsal.steps + 1
        )
        options = pretrain_program.parse([word for word in words[1:] if not word.startswith("--backbone.")])
        device = count_device_memory(options, share_of(name), rehearsal.images)
        row = _row(name, first, STOPPED, **_step_times(first, rehearsal.steps), device_GiB=device.total)
        row["share"] = rehearsal.share or share_of(name)
        steps = [int(row["step"]) for row in _losses(rehearsal, name)]
        if steps != list(range(1, len(steps) + 1)) or len(steps) <= rehearsal.steps:
            row["failed"] = f"the resumed run has the steps {steps}, exit status {again.status}"
        if device.total > DEVICE_LIMIT:
            row["failed"] = f"{device.total:.1f} GiB on the device, above {DEVICE_LIMIT:g}"
        yield row


def check_knn(rehearsal: Rehearsal) -> Iterator[Row]:
    """SimSiam's configuration with its kNN baselines, which are two checks of a full bank, alone and as two
    ranks."""
    for ranks in (1, 2):
        run = f"knn-{ranks}"
        shutil.rmtree(rehearsal.folder / "runs" / run, ignore_errors=True)
        words = pretrain_words(rehearsal, SIMSIAM, run=run, ranks=ranks, knn=True)
        watched = run_until(rehearsal, words, run=run, log=run, steps=1, ranks=ranks)
        row = _row(f"kNN baselines, {ranks} ranks", watched, STOPPED, both_checks_s=watched.times.get("knn"))
        baselines = [key for row in rows(_metrics(rehearsal, run)) for key in row if "baseline" in key]
        if not baselines:
            row["failed"] = f"no baseline was measured, exit status {watched.status}"
        yield row


def evaluate_features(rehearsal: Rehearsal, dims: tuple[int, int]) -> Iterator[Row]:
    """kNN and the logistic probe on feature files of the full counts, in two widths."""
    for dim in dims:
        files = [
            f"--{split}-features={_write_features(rehearsal, split, dim)}" for split in ("train", "test")
        ]
        for program, words in (
            ("knn", ["--k=20"]),
            ("linear", ["--strengths=1.0"]),
        ):
            log = rehearsal.log(f"{program}-{dim}")
            command = [sys.executable, str(ROOT / "eval" / f"{program}.py"), *files, *words]
            watched = run_watched([*command, "--device=cpu"], log, limit=rehearsal.limit)
            features = 4 * dim * (rehearsal.images + rehearsal.queries) / 2**30
            yield _row(f"{program}, {dim} numbers an image", watched, (0,), features_GiB=features)


def evaluate_checkpoint(rehearsal: Rehearsal, count: int) -> Iterator[Row]:
    """kNN of the rehearsed checkpoint on `count` images, and the time that the whole set would take."""
    path = rehearsal.folder / "list.txt"
    write_list(rehearsal.tree, count, path)
    log = rehearsal.log("knn-checkpoint")
    watched = run_watched(
        [
            sys.executable,
            str(ROOT / "eval" / "knn.py"),
            str(rehearsal.folder / "runs" / SIMSIAM / "checkpoint.pth"),
            f"--data.root={rehearsal.tree}",
            f"--data.list-file={path}",
            "--k=20",
            "--cache=none",
            "--device=cpu",
        ],
        log,
        limit=rehearsal.limit,
    )
    share = (count + rehearsal.queries) / (rehearsal.images + rehearsal.queries)
    whole = watched.seconds / share
    what = f"kNN of a checkpoint, {count} + {rehearsal.queries} images"
    yield _row(what, watched, (0,), whole_set_s=whole)


def _write_features(rehearsal: Rehearsal, split: str, dim: int) -> str:
    """Features of Gaussian classes in an uncompressed .npz, float32[N, dim], unless they are there."""
    count = rehearsal.images if split == "train" else rehearsal.queries
    path = rehearsal.folder / f"{split}-{count}-{rehearsal.classes}-{dim}.npz"
    if not path.is_file():
        labels = np.arange(count) % rehearsal.classes
        centres = np.random.default_rng(0).standard_normal((rehearsal.classes, dim), np.float32)
        noise = np.random.default_rng(count).standard_normal((count, dim), np.float32)
        noise += centres[labels]
        np.savez(path, features=noise, labels=labels)
    return str(path)


def _row(what: str, watched: Watched, statuses: tuple[int, ...], **columns: Any) -> Row:
    row: Row = {"what": what, "seconds": watched.seconds, "host_GiB": watched.peak, **columns}
    if watched.exceeded:
        row["failed"] = f"a rank went over the limit: {watched.peak:.1f} GiB"
    elif watched.status not in statuses:
        row["failed"] = f"exit status {watched.status}"
    return row


def _step_times(watched: Watched, steps: int) -> Row:
    first, last = watched.times.get("first"), watched.times.get("last")
    if first is None or last is None:
        return {}
    return {"first_step_s": first, "step_s": (last - first) / max(steps - 1, 1)}


def _losses(rehearsal: Rehearsal, run: str) -> list[dict[str, float]]:
    return [row for row in rows(_metrics(rehearsal, run)) if "loss" in row]


def _metrics(rehearsal: Rehearsal, run: str) -> Any:
    return rehearsal.folder / "runs" / run / "metrics.jsonl"


def _last_json(text: str) -> Row:
    lines = text.strip().splitlines()
    try:
        return dict(json.loads(lines[-1]))
    except (IndexError, ValueError, TypeError):
        return {}


STAGES: dict[str, Callable[..., Iterator[Row]]] = {
    "listing": list_tree,
    "configurations": start_configurations,
    "knn": check_knn,
    "checkpoint": evaluate_checkpoint,
    "features": evaluate_features,
}
