"""Time and memory of `siamtransfer video` on frames of 854 x 480 pixels, and of its parts.

    python -m benchmarks.video [--frames 20] [--backbone random:vit_small_patch16_224]

The program runs in a process of its own on one rendered video: processor seconds and the peak of its memory
(ru_maxrss, imports included). Then, in this process: the propagation to one frame from a context of 8 (384
random features) for patches of 16 and of 8 pixels, and J and F of one object. The last line is one JSON
document.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from siamtransfer.data.scenes.videos import VideoCounts, moving_objects
from siamtransfer.evaluation.video.propagation import Rule, propagate
from siamtransfer.metrics.video_objects import contour_accuracy, region_similarity
from siamtransfer.utils.strict_json import to_json

HEIGHT, WIDTH, DIM, CHANNELS = 480, 854, 384, 4
GRIDS = {16: (30, 52), 8: (60, 104)}
REPEATS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--backbone", default="random:vit_small_patch16_224")
    args = parser.parse_args()
    found: dict[str, object] = {"frames": args.frames, "backbone": args.backbone}
    with tempfile.TemporaryDirectory() as folder:
        write_video(Path(folder), args.frames)
        seconds, mib = run_program(folder, args.backbone)
    print(f"program: {seconds:.1f} s of processors for {args.frames} frames, {mib:.0f} MiB at most")
    found |= {"seconds": seconds, "mib": mib}
    for patch, grid in GRIDS.items():
        seconds = propagation(grid)
        print(f"propagation, patches of {patch}: {seconds:.3f} s a frame")
        found[f"propagation_{patch}"] = seconds
    first, second = (frame[1] == 1 for frame in padded(2))
    seconds = took(lambda: (region_similarity(first, second), contour_accuracy(first, second)))
    print(f"J and F: {1000 * seconds:.1f} ms an object and frame")
    found["scoring"] = seconds
    print(to_json(found))


def propagation(grid: tuple[int, int]) -> float:
    """Processor seconds of the propagation to one frame of so many patches."""
    maps = [functional.normalize(torch.randn(*grid, DIM), dim=-1) for _ in range(Rule.context + 2)]
    values = torch.rand(Rule.context + 1, *grid, CHANNELS)
    keys = torch.stack(maps[:-1])
    return took(lambda: propagate(maps[-1], keys, values, Rule()))


def took(what: Callable[[], object]) -> float:
    """The least processor seconds of REPEATS calls."""
    seconds = []
    for _ in range(REPEATS):
        began = time.process_time()
        what()
        seconds.append(time.process_time() - began)
    return min(seconds)


def padded(frames: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """A rendered video beside its mirror image, cut to the size; the mirror image has no masks."""
    counts = VideoCounts(size=HEIGHT, frames=max(frames, 3))
    return [
        (
            np.hstack([image, image[:, ::-1]])[:, :WIDTH],
            np.hstack([mask, np.zeros_like(mask)])[:, :WIDTH],
        )
        for image, mask in moving_objects("test", 2, counts)
    ][:frames]


def write_video(root: Path, frames: int) -> None:
    """The video in the folders of DAVIS."""
    folders = [root / kind / "480p" / "video" for kind in ("JPEGImages", "Annotations")]
    for folder in (*folders, root / "ImageSets/2017"):
        folder.mkdir(parents=True)
    (root / "ImageSets/2017/val.txt").write_text("video\n")
    for number, (image, mask) in enumerate(padded(frames)):
        Image.fromarray(image).save(folders[0] / f"{number:05d}.jpg", quality=95)
        Image.fromarray(mask).save(folders[1] / f"{number:05d}.png")


def run_program(root: str, backbone: str) -> tuple[float, float]:
    """Processor seconds and the peak in MiB of the program on the video."""
    words = ["video", backbone, f"--data.root={root}", "--device=cpu", "--precision=float32"]
    subprocess.run([sys.executable, "-m", "siamtransfer", *words], check=True, stdout=subprocess.DEVNULL)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


if __name__ == "__main__":
    main()
