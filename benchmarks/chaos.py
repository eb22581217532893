"""Random faults for a stated time: signals, damaged checkpoints, small disks, odd images, weights and texts.

    make chaos CHAOS_MINUTES=60                            an hour of trials
    python -m benchmarks.chaos --seed 7 --trials 1         the trial of seed 7 again

A trial draws its kind and all else from its seed. A run to which something happened is resumed and must equal
the undisturbed one to the bit. A damaged file must be read as it was or refused by one sentence, within ten
seconds and two gigabytes, in a process of its own, so that a crash is seen as one. The program prints each
failed trial with its seed and writes the counts to --result; it exits with 1 where a trial failed.
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.damage import damages  # noqa: E402
from support.small_runs import Run, differences, launch, newest, rows  # noqa: E402

from siamtransfer.checkpoints.read_backbone import read_backbone  # noqa: E402
from siamtransfer.cli.yaml_file import parse_yaml  # noqa: E402
from siamtransfer.data.decode import decode  # noqa: E402
from siamtransfer.utils.errors import UserError  # noqa: E402
from siamtransfer.utils.json_file import parse_json  # noqa: E402

OPTIONS = ("--checkpoint.every_steps=3", "--log.tensorboard=true")
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
LONGEST = 10  # seconds, for a file
MOST_BYTES = 2 * 2**30  # of memory, beyond what the process began with
FILES = 20  # damaged files a trial
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
TEXT = '{"optim": {"lr": 0.05, "batch_size": 64}, "views": {"size": [32, 1e-3]}, "name": "a", "on": true}'


def signalled(draw: random.Random, whole: Path, folder: Path) -> str:
    """Signals at random moments of a run and of its resumptions, up to three."""
    for attempt in range(draw.randint(1, 3)):
        run = launch(folder, *OPTIONS, *(["--resume"] if attempt else []))
        run.process.join(draw.uniform(0, float(whole.with_suffix(".seconds").read_text())))
        if run.process.is_alive():
            os.kill(run.process.pid, draw.choice(SIGNALS))
        if ended(run) is None:
            return f"it did not end: {run.said[-300:]}"
    return resumed(whole, folder)


def damaged_checkpoint(draw: random.Random, whole: Path, folder: Path) -> str:
    """A run is killed after its first checkpoints, and one or all of them are damaged."""
    run = launch(folder, *OPTIONS)
    deadline = time.monotonic() + 60
    while len(list(folder.glob("checkpoints/step-*.pth"))) < 2 and time.monotonic() < deadline:
        run.process.join(0.01)
        if not run.process.is_alive():
            break
    if run.process.is_alive():
        run.process.kill()
    ended(run)
    files = sorted(folder.glob("checkpoints/step-*.pth"))
    hit = files if draw.random() < 0.3 else [draw.choice(files)]
    for path in hit:
        path.write_bytes(next(damages(path.read_bytes(), None, seed=draw.randrange(2**32), count=1)))
    if len(hit) == len(files):
        again = launch(folder, *OPTIONS, "--resume")
        status = ended(again)
        refused = status == 2 and "Traceback" not in again.said
        return "" if refused else f"all checkpoints are damaged, and the run ended with {status}"
    return resumed(whole, folder)


def small_disk(draw: random.Random, whole: Path, folder: Path) -> str:
    """No file can grow beyond a random size; the run is resumed without that limit."""
    size = int(2 ** draw.uniform(0, 21))
    run = launch(folder, *OPTIONS, fault=functools.partial(limit_files, size))
    status = ended(run)
    if status is None or status < 0 or "Traceback" in run.said:
        return f"files of {size} bytes: it ended with {status}: {run.said[-300:]}"
    return resumed(whole, folder)


def limit_files(size: int) -> None:
    """Lets no file of this process grow beyond `size` bytes: writing more is an error, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def resumed(whole: Path, folder: Path) -> str:
    """Resumes a run to its end: what differs from the undisturbed one, or ""."""
    run = launch(folder, *OPTIONS, "--resume")
    status = ended(run)
    if status != 0:
        return f"the resumed run ended with {status}: {run.said[-300:]}"
    wrong = differences(newest(folder), newest(whole))
    return ", ".join(wrong + (["metrics.jsonl"] if rows(folder) != rows(whole) else []))


def ended(run: Run, seconds: float = 120) -> int | None:
    """The exit status, or None where the process has not ended in time; it is killed then."""
    run.process.join(seconds)
    status: int | None = run.process.exitcode
    if status is None:
        run.process.kill()
        run.process.join()
    return status


def odd_images(draw: random.Random, whole: Path, folder: Path) -> str:
    """Damaged images of a random format and mode."""
    pixels = np.random.default_rng(draw.randrange(2**32)).integers(
        0, 256, (draw.randint(1, 90), draw.randint(1, 90), 3), dtype=np.uint8
    )
    image = Image.fromarray(pixels).convert(draw.choice(("RGB", "L", "RGBA", "P", "1", "CMYK")))
    content, kind = io.BytesIO(), draw.choice(FORMATS)
    try:
        image.save(content, kind)
    except (OSError, ValueError):  # the format has no such mode
        image.convert("RGB").save(content, kind)
    for damaged in damages(content.getvalue(), None, seed=draw.randrange(2**32), count=FILES):
        wrong = bounded(lambda damaged=damaged: decode(damaged, "image"))  # type: ignore[misc]
        if wrong:
            return f"{kind}: {wrong}"
    return ""


def odd_weights(draw: random.Random, whole: Path, folder: Path) -> str:
    """Damaged files of weights: the tensors are the same or the file is refused."""
    folder.mkdir(parents=True)
    state = read_backbone(whole / "checkpoint.pth").state
    path = folder / "weights.pth"
    torch.save(dict(state), path, _use_new_zipfile_serialization=draw.random() < 0.7)
    digest, content = read_backbone(path).digest, path.read_bytes()
    legacy = not content.startswith(b"PK")  # PyTorch's format before 1.6 has no checksums
    for damaged in damages(content, None, seed=draw.randrange(2**32), count=FILES // 4):
        path.write_bytes(damaged)
        found: list[Any] = []
        wrong = bounded(lambda found=found: found.append(read_backbone(path)))  # type: ignore[misc]
        if wrong:
            return wrong
        if found and found[0].digest != digest and not legacy:
            return "other numbers were read"
    return ""


def odd_texts(draw: random.Random, whole: Path, folder: Path) -> str:
    """Damaged YAML and JSON."""
    for damaged in damages(TEXT.encode(), None, seed=draw.randrange(2**32), count=5 * FILES):
        text = damaged.decode("latin-1")
        for read in (parse_json, parse_yaml):
            wrong = bounded(lambda text=text, read=read: read(text, "file"))  # type: ignore[misc]
            if wrong:
                return wrong
    return ""


def bounded(read: Callable[[], Any]) -> str:
    """Reads: what is wrong with the time, the memory or the error that it takes, or ""."""
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        read()
    except UserError as error:
        if not str(error) or "\n" in str(error):
            return f"the error is no sentence: {error!r}"
    except Exception as error:  # any other is what the trial looks for
        return f"{type(error).__name__}: {error}"
    seconds = time.monotonic() - began
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    if seconds > LONGEST or more > MOST_BYTES:
        return f"it took {seconds:.1f} s and {more / 2**30:.1f} GB"
    return ""


RUNS = {"signal": signalled, "damaged checkpoint": damaged_checkpoint, "small disk": small_disk}
READS = {"image": odd_images, "weights": odd_weights, "text": odd_texts}


def trial(seed: int, base: Path, whole: Path) -> tuple[str, str]:
    """The kind of the trial of a seed, and what is wrong ("" where nothing is)."""
    draw = random.Random(seed)
    kind = draw.choice([*RUNS, *READS])
    folder = base / f"run{seed}"
    if kind in RUNS:
        wrong = RUNS[kind](draw, whole, folder)
    else:
        wrong = in_own_process(lambda: READS[kind](draw, whole, folder))
    if not wrong:
        for path in base.glob(f"run{seed}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return kind, wrong


def in_own_process(work: Callable[[], str], seconds: int = 120) -> str:
    """What `work` returns in a fork of this process, or the signal that ended it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(seconds)
            os.write(writing, work().encode(errors="replace")[:4000])
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        said = file.read().decode()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return f"the process was ended by {signal.Signals(os.WTERMSIG(status)).name}"
    return said if os.WEXITSTATUS(status) == 0 else "the trial itself failed"


def undisturbed(folder: Path) -> Path:
    """The folder of a run to which nothing happens; beside it is how long it took."""
    launch(folder.with_name("first"), *OPTIONS).wait(300)  # the server that forks is started by it
    began = time.monotonic()
    run = launch(folder, *OPTIONS)
    assert run.wait(300) == 0, run.said
    folder.with_suffix(".seconds").write_text(str(time.monotonic() - began))
    return folder


def main() -> None:
    """Makes trials for `--minutes`, prints the failed ones, and writes how many of each kind there were."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the first trial; the next has the next seed")
    parser.add_argument("--trials", type=int, default=0, help="end after so many trials; 0: at the time only")
    parser.add_argument("--result", type=Path, default=Path("chaos.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    counts: Counter[str] = Counter()
    failed: dict[int, str] = {}
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary)
        os.environ["XDG_CACHE_HOME"] = str(base / "cache")  # which the runs are handed
        whole = undisturbed(base / "whole")
        deadline, seed = time.monotonic() + 60 * options.minutes, options.seed
        while time.monotonic() < deadline and seed - options.seed != (options.trials or -1):
            kind, wrong = trial(seed, base, whole)
            counts[kind] += 1
            if wrong:
                failed[seed] = f"{kind}: {wrong}"
                print(f"seed {seed}: {failed[seed]}", flush=True)
            seed += 1
    print(
        f"{counts.total()} trials, {len(failed)} failed; seeds {options.seed} to {seed - 1}; {dict(counts)}"
    )
    result = {"seeds": [options.seed, seed - 1], "trials": dict(counts), "failed": failed}
    options.result.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
