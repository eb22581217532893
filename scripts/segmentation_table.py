"""The lines of the table that scripts/segmentation_demo.py prints, from its numbers by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from measuring import difference_over_trials, mean_and_std

SIMSIAM, UNTRAINED, PIXELS = "simsiam", "untrained", "pixels"
PROBES = {"linear": "linear", "knn/k=30": "kNN (k=30)", "kmeans": "k-means"}
NAMES = {SIMSIAM: "SimSiam", UNTRAINED: "untrained", PIXELS: "raw pixels"}
JACCARD = "best-head-of-object"

Numbers = Mapping[str, float]


def probe_lines(numbers: Numbers, layers: Sequence[str], images: str) -> list[str]:
    """A line for every network and for every paired difference, layer by layer."""
    heads = "".join(f"{title:>24}" for title in PROBES.values())
    lines = [f"mIoU in % of frozen patches on {images} (95 % interval over the images)"]
    for layer in layers:
        lines.append(f"  {layer:22}{heads}{'ceiling of the grid':>22}")
        for network, name in NAMES.items():
            prefix = f"{layer}/{network}"
            cells = "".join(f"{_with_interval(numbers, f'{prefix}/{probe}/miou'):>24}" for probe in PROBES)
            lines.append(f"  {name:22}{cells}{numbers[f'{prefix}/ceiling/miou']:>22.2f}")
        for network in (UNTRAINED, PIXELS):
            prefix = f"{layer}/{SIMSIAM} - {network}"
            cells = "".join(f"{_difference(numbers, f'{prefix}/{probe}/miou'):>24}" for probe in PROBES)
            lines.append(f"  {f'SimSiam - {NAMES[network]}':22}{cells}")
    return lines


def fcn_lines(numbers: Numbers, trials: int) -> list[str]:
    """Both fine-tunings and their paired difference."""
    metric = "semantic/mIoU"
    results = {name.removeprefix("fcn/"): value for name, value in numbers.items()}
    simsiam, scratch = (mean_and_std(results, f"{side}{metric}") for side in ("", "other/"))
    return [
        f"mIoU in % of a fine-tuned FCN, {trials} trials of each (mean ± standard deviation)",
        f"  {'SimSiam':>15}{'untrained':>15}{'difference':>13}   95 % interval over the trials",
        f"  {simsiam:>15}{scratch:>15}{difference_over_trials(results, metric)}",
    ]


def jaccard_lines(numbers: Numbers, networks: tuple[str, str]) -> list[str]:
    """The Jaccard index of the attention of a ViT with and without training, and of a mask of everything."""
    trained, untrained = networks
    key = f"{trained} - {untrained}/{JACCARD}/mean"
    lines = ["Jaccard index in % of the attention's masks, the best head for each object (95 % interval)"]
    for network in networks:
        name = f"{network}/jaccard/{JACCARD}"
        lines.append(f"  {network:22}{numbers[name]:7.2f} ± {numbers[f'{name}/ci95']:.2f}")
    return [*lines, f"  {'difference':22}{_difference(numbers, key):>24}"]


def _with_interval(numbers: Numbers, name: str) -> str:
    low, high = (numbers[f"{name}/ci95_{end}"] for end in ("low", "high"))
    return f"{numbers[name]:.2f} ({low:.2f} to {high:.2f})"


def _difference(numbers: Numbers, name: str) -> str:
    low, high = (numbers[f"{name}/ci95_{end}"] for end in ("low", "high"))
    return f"{numbers[f'{name}/difference']:+.2f} ({low:+.2f} to {high:+.2f})"
