"""kNN search against the bare matrix product, and a bank that is larger than the memory it may use.

    python -m benchmarks.knn [--bank 50000] [--queries 10000] [--dim 512] [--k 200] [--large] [--check]

First, in one run, the time of the product alone (all similarities at once), of that and torch's top-k in
blocks, of `search`, and of FAISS's flat index where it is installed. With --large also a bank of 1,281,167 x
2048 in half precision (5 GB, written to a temporary folder and mapped), 1,000 queries: time and the most
memory held. With --check instead the kNN check of a pretraining run, extraction included, with features of
--dim from images of 8 pixels a side: time and memory beyond those of the images. The last line is one JSON
document.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from siamtransfer.data.imageset import ArrayImages
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.knn.search import search
from siamtransfer.features.extract import Transform
from siamtransfer.pretraining.knn_scorer import KnnScorer
from siamtransfer.utils.log import print_messages, say
from siamtransfer.utils.strict_json import to_json

LARGE = (1_281_167, 2048)
BLOCK = 1024  # queries of a product in blocks


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, size in (("bank", 50_000), ("queries", 10_000), ("dim", 512), ("k", 200)):
        parser.add_argument(f"--{name}", type=int, default=size)
    parser.add_argument("--large", action="store_true", help="also the mapped bank of 5 GB")
    parser.add_argument("--check", action="store_true", help="only the check of a run, and its memory")
    parser.add_argument("--child", default=None, help=argparse.SUPPRESS)
    args = parser.parse_args()
    print_messages()
    if args.child:
        search_large(Path(args.child))
        return
    if args.check:
        print(to_json({"task": "benchmark/knn", "metrics": check(args), "protocol": vars(args)}))
        return
    bank, queries = (F.normalize(torch.randn(n, args.dim), dim=1) for n in (args.bank, args.queries))
    searches: dict[str, Callable[[], object]] = {
        "product": lambda: queries @ bank.T,
        "product and top-k": lambda: [(block @ bank.T).topk(args.k) for block in queries.split(BLOCK)],
        "search": lambda: search(bank, queries, args.k),
        **faiss_flat(bank, queries, args.k),
    }
    seconds = {name: min(clock(run) for _ in range(3)) for name, run in searches.items()}
    metrics: dict[str, float] = {f"{name} s": value for name, value in seconds.items()}
    metrics["search / product"] = seconds["search"] / seconds["product"]
    for name, value in metrics.items():
        say(f"{name:20} {value:6.2f}")
    if args.large:
        metrics |= large()
    print(to_json({"task": "benchmark/knn", "metrics": metrics, "protocol": vars(args)}))


def clock(run: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def faiss_flat(bank: Tensor, queries: Tensor, k: int) -> dict[str, Callable[[], object]]:
    try:
        import faiss
    except ImportError:
        return {}
    index = faiss.IndexFlatIP(bank.shape[1])
    index.add(bank.numpy())
    return {"FAISS flat": lambda: index.search(queries.numpy(), k)}


def large() -> dict[str, float]:
    """Writes the bank, searches it in a process of its own, and reads its time and its memory."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bank.npy"
        bank = np.lib.format.open_memmap(path, "w+", np.float16, LARGE)
        generator = np.random.default_rng(0)
        for start in range(0, len(bank), 2**16):
            rows = bank[start : start + 2**16]
            rows[:] = generator.standard_normal(rows.shape, np.float32)
        bank.flush()
        del bank
        command = [sys.executable, "-m", "benchmarks.knn", "--child", str(path)]
        child = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, memory = map(float, child.stdout.split())
    say(f"mapped bank of {LARGE[0]} x {LARGE[1]}: {seconds:.1f} s, at most {memory / 1e9:.2f} GB of memory")
    return {"large s": seconds, "large bytes": memory}


def search_large(path: Path) -> None:
    queries = torch.randn(1000, LARGE[1])
    start = time.perf_counter()
    search(np.load(path, mmap_mode="r"), queries, 200)
    print(time.perf_counter() - start, memory("VmHWM"))


def check(args: argparse.Namespace) -> dict[str, float]:
    """A check by KnnScorer with a backbone of one linear layer."""
    generator = np.random.default_rng(0)

    def noise(split: str, size: int) -> ArrayImages:
        pixels = generator.integers(0, 256, (size, 8, 8, 3), dtype=np.uint8)
        return ArrayImages("noise", split, pixels, np.arange(size) % 1000)

    bank, queries = noise("train", args.bank), noise("test", args.queries)
    alone = Runtime(torch.device("cpu"), torch.float32)
    scorer = KnnScorer(bank, queries, Transform(8, None, (0.5,) * 3, (0.25,) * 3), alone, args.k, 0.07)
    backbone = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, args.dim))
    before = memory("VmRSS")
    seconds = clock(lambda: scorer.score(backbone))
    metrics = {"check s": seconds, "check bytes": memory("VmHWM") - before}
    say(f"check: {seconds:.1f} s, at most {metrics['check bytes'] / 2**30:.2f} GiB beyond the images")
    return metrics


def memory(kind: str) -> int:
    """Bytes that this process holds (VmRSS), or held at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(kind)).split()[1])


if __name__ == "__main__":
    main()
