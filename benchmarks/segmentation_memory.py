"""How the memory of the segmentation probes grows, with patches and with images.

    python -m benchmarks.segmentation_memory [--patches 20000 40000 80000] [--images 250 500 1000]

First part: a probe is fitted to patches[n, D] that are there already, and scores 2048 others, in a process of
its own; what its peak (ru_maxrss) rises by beyond the patches is fitted to n D: 0 bytes a number means no
copy, 4 one copy in float32. Second part: `siamtransfer segmentation pixels` on embedded scenes of 64 pixels
with a fixed --memory-budget, by the number of train images; the slope is in KiB an image. The last line is
one JSON document.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Sequence

import numpy as np
import torch

from benchmarks.memory import peak
from siamtransfer.evaluation.segmentation.clusters import fit_clusters
from siamtransfer.evaluation.segmentation.config import MaskedData, ProbeName, SegmentationConfig
from siamtransfer.evaluation.segmentation.neighbours import fit_neighbours
from siamtransfer.evaluation.segmentation.probe import Patches, PatchProbe
from siamtransfer.utils.strict_json import to_json

CLASSES, DIM, QUERIES, SMALL = 21, 256, 2048, 2000
BUDGET = 0.02  # GiB
Fit = Callable[[Patches, SegmentationConfig, torch.device], Sequence[PatchProbe]]
FITS: dict[str, Fit] = {"knn": fit_neighbours, "kmeans": fit_clusters}
MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--patches", type=int, nargs="+", default=[20_000, 40_000, 80_000])
    parser.add_argument("--images", type=int, nargs="+", default=[250, 500, 1000])
    parser.add_argument("--measure", nargs=2, metavar=("WHAT", "SIZE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        what, size = args.measure
        print(peak_of_program(int(size)) if what == "program" else rise_of_probe(what, int(size)))
        return
    found: dict[str, object] = {"dim": DIM, "memory_budget_gib": BUDGET}
    for name in FITS:
        rises = [in_a_process(name, size) for size in args.patches]
        slope = np.polyfit(np.array(args.patches) * DIM, rises, 1)[0] if len(rises) > 1 else float("nan")
        print(f"{name:8} {slope:6.2f} bytes a number beyond the patches;", table(args.patches, rises))
        found[name] = {"patches": args.patches, "bytes": rises, "bytes_a_number": float(slope)}
    peaks = [in_a_process("program", size) for size in args.images]
    slope = np.polyfit(args.images, peaks, 1)[0] if len(peaks) > 1 else float("nan")
    print(f"program  {slope / 1024:6.2f} KiB an image;", table(args.images, peaks))
    found["program"] = {"images": args.images, "bytes": peaks, "bytes_an_image": float(slope)}
    print(to_json(found))


def table(sizes: Sequence[int], values: Sequence[int]) -> str:
    return ", ".join(f"{size:,}: {value / MIB:.0f} MiB" for size, value in zip(sizes, values, strict=True))


def in_a_process(what: str, size: int) -> int:
    command = [sys.executable, "-m", "benchmarks.segmentation_memory", "--measure", what, str(size)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def rise_of_probe(name: str, count: int) -> int:
    """Bytes that the peak rises by when a probe is fitted to `count` patches and scores queries."""
    config = SegmentationConfig(restarts=1, clusters=CLASSES, memory_budget=BUDGET)

    def fit_and_score(patches: Patches) -> None:
        (probe,) = FITS[name](patches, config, torch.device("cpu"))
        probe.scores(patches.features[:QUERIES] + 0.1)

    fit_and_score(random_patches(SMALL))
    patches = random_patches(count)
    before = peak()
    fit_and_score(patches)
    return peak() - before


def random_patches(count: int) -> Patches:
    features = torch.empty(count, DIM)
    generator = torch.Generator().manual_seed(0)
    for rows in features.split(SMALL):  # drawn in place: nothing is left over that a fit could use again
        rows.normal_(generator=generator)
    labels = torch.arange(count) % CLASSES
    return Patches(features, labels, torch.arange(count), tuple(map(str, range(CLASSES))))


def peak_of_program(images: int) -> int:
    """Bytes at most of the whole program on `images` train images."""
    from siamtransfer.programs.segmentation import evaluate_segmentation

    data = MaskedData(name="fashion-scenes", size=64, count=images, test_count=20)
    probes: list[ProbeName] = ["knn", "kmeans"]
    config = SegmentationConfig(
        checkpoint="pixels", data=data, probe=probes, memory_budget=BUDGET, restarts=1, device="cpu"
    )
    evaluate_segmentation(config)
    return peak()


if __name__ == "__main__":
    main()
