"""mIoU by our counts, by torchmetrics and by Detectron2's evaluator: equal, and timed in one run.

    python -m benchmarks.miou [--images 60] [--classes 150]
    python -m benchmarks.miou --evaluation 20000      memory of a whole evaluation, with its interval

Two things are timed, the least of three rounds over all images. `counting` begins with a map of classes and
a mask in memory and ends with the counts; Detectron2 counts by the expression of its evaluator. `evaluator`
begins with an int64 map of classes and the mask's file. The argmax over scores, which takes most of the time
of an evaluator and is the same for both, is left out, and so is the JSON of every prediction that
Detectron2's evaluator encodes. The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from PIL import Image

from siamtransfer.detection.detectron2.compat import import_detectron2
from siamtransfer.metrics.segmentation import ConfusionMatrix, PerImageCounts, SegmentationScores
from siamtransfer.metrics.segmentation_intervals import interval
from siamtransfer.segmentation.data.read_mask import read_mask
from siamtransfer.utils.log import print_messages, say
from siamtransfer.utils.strict_json import to_json

if TYPE_CHECKING:
    from detectron2.evaluation import SemSegEvaluator

HEIGHT, WIDTH, BLOCK, IGNORE, ROUNDS = 500, 683, 40, 255, 3
SMALL = 256
"""Pixels a side in the evaluation of many images."""
Maps = list[tuple[np.ndarray, np.ndarray]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, size in (("images", 60), ("classes", 150), ("seed", 0), ("evaluation", 0)):
        parser.add_argument(f"--{name}", type=int, default=size)
    asked = parser.parse_args()
    print_messages()
    torch.set_num_threads(1)
    if asked.evaluation:
        metrics = memory_of_evaluation(asked.evaluation, asked.classes, asked.seed)
    else:
        maps = [blocks(asked.classes, HEIGHT, WIDTH, asked.seed + n) for n in range(asked.images)]
        metrics = time_counting(maps, asked.classes) | time_evaluators(maps, asked.classes)
    print(to_json({"task": "benchmark/miou", "metrics": metrics, "protocol": vars(asked) | {"threads": 1}}))


def blocks(classes: int, height: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A prediction and a mask uint8[H,W] of square blocks, shifted against each other; 3 rows are ignored."""
    draw = np.random.default_rng(seed)
    coarse = draw.integers(0, classes, (height // BLOCK + 1, width // BLOCK + 1), dtype=np.uint8)
    mask = np.ascontiguousarray(coarse.repeat(BLOCK, 0).repeat(BLOCK, 1)[:height, :width])
    prediction = np.roll(mask, (5, 9), (0, 1))
    mask[:3] = IGNORE
    return prediction, mask


def time_counting(maps: Maps, classes: int) -> dict[str, float]:
    """Milliseconds an image of the three ways, the ratios to ours, and the largest difference of mIoU."""
    from torchmetrics.classification import MulticlassJaccardIndex

    def ours() -> float:
        matrix = ConfusionMatrix(classes)
        for prediction, mask in maps:
            matrix.add(prediction, mask, IGNORE)
        return SegmentationScores.from_counts(matrix.counts).miou

    tensors = [tuple(torch.from_numpy(array).long()[None] for array in pair) for pair in maps]

    def torchmetrics() -> float:
        metric = MulticlassJaccardIndex(classes, ignore_index=IGNORE, validate_args=False)
        for prediction, mask in tensors:
            metric.update(prediction, mask)
        return float(metric.compute())

    def detectron2() -> float:
        counts = np.zeros((classes + 1) ** 2, np.int64)
        for prediction, mask in maps:
            truth = mask.astype(int)
            truth[truth == IGNORE] = classes
            pairs = (classes + 1) * prediction.astype(int).reshape(-1) + truth.reshape(-1)
            counts += np.bincount(pairs, minlength=len(counts))
        inner = counts.reshape(classes + 1, classes + 1)[:-1, :-1]
        return SegmentationScores.from_counts(inner.T).miou

    ways = {"ours": ours, "torchmetrics": torchmetrics, "detectron2": detectron2}
    return compare("counting", ways, len(maps))


def time_evaluators(maps: Maps, classes: int) -> dict[str, float]:
    """The same of whole evaluators, from maps of classes and files of masks."""
    import_detectron2()
    with tempfile.TemporaryDirectory() as folder:
        files = [str(Path(folder) / f"{number}.png") for number in range(len(maps))]
        for file, (_, mask) in zip(files, maps, strict=True):
            Image.fromarray(mask).save(file)
        predictions = [torch.from_numpy(prediction).long() for prediction, _ in maps]

        def ours() -> float:
            matrix = ConfusionMatrix(classes)
            for file, prediction in zip(files, predictions, strict=True):
                matrix.add(prediction.numpy(), read_mask(file), IGNORE)
            return SegmentationScores.from_counts(matrix.counts).miou

        def detectron2() -> float:
            evaluator = evaluator_of_detectron2(classes, files)
            for file, prediction in zip(files, predictions, strict=True):
                evaluator.process([{"file_name": file}], [{"sem_seg": Scores(prediction)}])
            return evaluator.evaluate()["sem_seg"]["mIoU"] / 100

        return compare("evaluator", {"ours": ours, "detectron2": detectron2}, len(maps))


class Scores(NamedTuple):
    """Stands in for the scores of all classes, whose argmax is known."""

    classes: torch.Tensor

    def argmax(self, dim: int) -> torch.Tensor:
        """int64[H,W]."""
        return self.classes


def evaluator_of_detectron2(classes: int, files: list[str]) -> SemSegEvaluator:
    """Detectron2's evaluator without a registered data set and without JSON."""
    from detectron2.evaluation import SemSegEvaluator

    evaluator = SemSegEvaluator.__new__(SemSegEvaluator)
    evaluator.__dict__.update(
        _logger=types.SimpleNamespace(info=lambda *_: None),
        _distributed=False,
        _output_dir=None,
        _cpu_device=torch.device("cpu"),
        _class_names=[str(number) for number in range(classes)],
        _num_classes=classes,
        _ignore_label=IGNORE,
        input_file_to_gt_file={file: file for file in files},
        encode_json_sem_seg=lambda *_: [],
    )
    evaluator.reset()
    return evaluator


def compare(what: str, ways: dict[str, Callable[[], float]], images: int) -> dict[str, float]:
    """Runs every way ROUNDS times in turn; the least time of each counts."""
    seconds = dict.fromkeys(ways, float("inf"))
    values: dict[str, float] = {}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            before = time.perf_counter()
            values[name] = way()
            seconds[name] = min(seconds[name], time.perf_counter() - before)
    metrics = {f"{what}/{name} ms": 1000 * taken / images for name, taken in seconds.items()}
    for name in list(ways)[1:]:
        metrics[f"{what}/{name} ratio"] = seconds[name] / seconds["ours"]
        metrics[f"{what}/{name} difference"] = abs(values[name] - values["ours"])
        took, ratio, difference = (metrics[f"{what}/{name} {key}"] for key in ("ms", "ratio", "difference"))
        say(
            f"{what}: ours {metrics[f'{what}/ours ms']:.2f} ms an image, {name} {took:.2f}: "
            f"{ratio:.2f} times; mIoU differs by {difference:.1e}"
        )
    return metrics


def memory_of_evaluation(images: int, classes: int, seed: int) -> dict[str, float]:
    """Counts `images` maps, takes scores and intervals, and says the most memory of this process in MiB."""
    before = largest_memory()
    started = time.perf_counter()
    matrix, by_image = ConfusionMatrix(classes), PerImageCounts(classes)
    for number in range(images):
        by_image.add(matrix.add(*blocks(classes, SMALL, SMALL, seed + number), IGNORE))
    counted = time.perf_counter() - started
    ends = interval(by_image)["miou"]
    metrics = {
        "miou": by_image.scores().miou,
        "ci95_low": ends[0],
        "ci95_high": ends[1],
        "entries an image": by_image.ends[-1] / images,
        "counting s": counted,
        "interval s": time.perf_counter() - started - counted,
        "MiB before": before,
        "MiB at most": largest_memory(),
    }
    say(
        f"{images:,} images of {classes} classes: {metrics['MiB at most']:.0f} MiB at most, {before:.0f} "
        f"before; {counted:.0f} s of counting, {metrics['interval s']:.1f} s for the interval"
    )
    return metrics


def largest_memory() -> float:
    """The largest resident memory of this process so far in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
