"""How many samples one core turns from JPEG files into pairs of views, against the official recipe.

    python -m benchmarks.data_path

Photographs of 500 x 375 pixels, two views of 224 pixels each with SimSiam's augmentation, one thread:

- official: Pillow and torchvision's transforms, as in the SimSiam and MoCo v2 code.
- crop: the work of our workers, decode and crop in 8 bits; the device makes the rest, which is not counted.
- crop and augment: the same, and the augmentation on this CPU too.

Processor time is compared (`time.process_time`, which counts every thread), so other programs on the machine
disturb little; the three run in turn, and the median of the repeats counts. The photographs are crops of the
two in scikit-learn, written to a temporary folder. Prints a table and, last, one line
of JSON; exits with status 1 when a speed-up is below its target.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter
from sklearn.datasets import load_sample_images
from torchvision import transforms

from siamtransfer.data.decode import decode
from siamtransfer.records.record import record
from siamtransfer.utils.strict_json import to_json
from siamtransfer.views.dataset import ViewBatch, ViewSet, augment_batch
from siamtransfer.views.recipes import recipe

WIDTH, HEIGHT, QUALITY = 500, 375, 90
BATCH = 16
TARGETS = {"crop": 4.5, "crop and augment": 1.5}


def main() -> int:
    """Runs the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=64, help="distinct photographs (default 64)")
    parser.add_argument("--repeats", type=int, default=9, help="passes of each of the three (default 9)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    with tempfile.TemporaryDirectory() as folder:
        paths = write_photographs(Path(folder), arguments.files)
        passes = data_paths(paths)
        for run in passes.values():
            run(0)
        times: dict[str, list[float]] = {name: [] for name in passes}
        for repeat in range(1, arguments.repeats + 1):
            for name, run in passes.items():
                start = time.process_time()
                run(repeat)
                times[name].append((time.process_time() - start) / len(paths))

    seconds = {name: statistics.median(values) for name, values in times.items()}
    speed_up = {name: seconds["official"] / value for name, value in seconds.items()}
    print(f"{'':16}{'ms a sample':>12}{'samples/s':>12}{'speed-up':>10}{'target':>8}")
    for name, value in seconds.items():
        target = TARGETS.get(name, "")
        print(f"{name:16}{1e3 * value:12.2f}{1 / value:12.1f}{speed_up[name]:10.2f}{target:>8}")
    metrics = {
        f"data_path/{name.replace(' ', '_')}/samples_per_s": 1 / value for name, value in seconds.items()
    }
    metrics |= {f"data_path/{name.replace(' ', '_')}/speed_up": speed_up[name] for name in TARGETS}
    protocol = {
        "image": [HEIGHT, WIDTH],
        "quality": QUALITY,
        "views": "2 x 224, simsiam",
        "threads": 1,
        "batch": BATCH,
        "time": "process_time",
        "statistic": "median",
        **vars(arguments),
    }
    print(to_json(record("data_path", metrics, protocol, cpu=cpu_name())))
    return int(any(speed_up[name] < target for name, target in TARGETS.items()))


def data_paths(paths: list[Path]) -> dict[str, Callable[[int], None]]:
    """For each name a function that makes all samples once; its argument is the epoch."""
    transform = official_transform()
    ours = recipe("simsiam")
    views = ViewSet(lambda index: (decode(paths[index]), []), ours, seed=0, length=len(paths))

    def official(epoch: int) -> None:
        torch.manual_seed(epoch)
        random.seed(epoch)
        for path in paths:
            with path.open("rb") as file:
                image = Image.open(file).convert("RGB")
            transform(image), transform(image)

    def batches(epoch: int) -> Iterator[ViewBatch]:
        for start in range(0, len(paths), BATCH):
            yield views.__getitems__([(epoch, n) for n in range(start, min(start + BATCH, len(paths)))])

    def crop(epoch: int) -> None:
        for _ in batches(epoch):
            pass

    def crop_and_augment(epoch: int) -> None:
        for batch in batches(epoch):
            augment_batch(batch, ours)

    return {"official": official, "crop": crop, "crop and augment": crop_and_augment}


def official_transform() -> transforms.Compose:
    """SimSiam's augmentation on PIL images."""

    def blur(image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(radius=random.uniform(0.1, 2.0)))

    return transforms.Compose(
        [
            transforms.RandomResizedCrop(224, scale=(0.2, 1.0)),
            transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            transforms.RandomGrayscale(p=0.2),
            transforms.RandomApply([transforms.Lambda(blur)], p=0.5),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
        ]
    )


def write_photographs(folder: Path, count: int) -> list[Path]:
    """Writes `count` different JPEG files, crops of scikit-learn's two photographs."""
    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    random_numbers = np.random.default_rng(0)
    paths = []
    for number in range(count):
        photograph = photographs[number % len(photographs)]
        width = int(random_numbers.integers(400, 560))
        height = round(width * HEIGHT / WIDTH)
        left = int(random_numbers.integers(photograph.width - width + 1))
        top = int(random_numbers.integers(photograph.height - height + 1))
        picture = photograph.crop((left, top, left + width, top + height))
        paths.append(folder / f"{number:03}.jpg")
        picture.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(paths[-1], quality=QUALITY)
    return paths


def cpu_name() -> str:
    """The processor's model where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown"
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "unknown")


if __name__ == "__main__":
    sys.exit(main())
