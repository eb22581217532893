"""Segmentation of the embedded many-object scenes: frozen probes, a fine-tuned FCN, and what a ViT looks at.

    python scripts/segmentation_demo.py [--run DIR] [--out DIR] [--trials N]
        what `make segmentation-demo` does

It measures the backbone of `make demo`, one of the same shape without training, and raw pixels: linear, kNN
and k-means mIoU of their patches, and the mIoU of an FCN that is fine-tuned from the two backbones (pixels
have no weights to start from). All layers that are measured are in the table. Then it trains a small ViT by
DINO for a minute or two and shows the attention of its heads. Pictures and table.json are in --out. After an
interruption, run it again: it continues.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from measuring import HERE, pretrained_in, stage
from segmentation_table import PIXELS, SIMSIAM, UNTRAINED, fcn_lines, jaccard_lines, probe_lines

from siamtransfer.cli import run
from siamtransfer.distributed.runtime import cpu_count
from siamtransfer.utils.checks import at_least
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import digest_of_file, write_text
from siamtransfer.utils.log import say
from siamtransfer.utils.strict_json import to_json

CONFIG = HERE / "configs" / "detection" / "scenes-fcn.yaml"
VIT_CONFIG = HERE / "configs" / "pretrain" / "scenes-dino-vit.yaml"
VIT, UNTRAINED_VIT = "DINO", "untrained ViT"
SETTINGS, TABLE = "settings.json", "table.json"


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        train, test: many-object scenes; the same ones for probes and FCN.
        side: of a scene in pixels; the input of probes and attention has `enlarged` times as many.
        patches: drawn of every train image for the probes.
        layers: whose maps are probed, each with the side of its patches, in pixels of the input.
        pictures: scenes in a picture.
        vit: options of pretrain/main.py.
        fcn: KEY VALUE pairs of Detectron2.
    """

    train: int = 1000
    test: int = 200
    side: int = 96
    enlarged: int = 2
    patches: int = 20
    layers: tuple[tuple[str, int], ...] = (("layer3", 16), ("layer2+layer3", 8))
    pictures: int = 4
    vit: tuple[str, ...] = ()
    fcn: tuple[str, ...] = ()


QUICK = Sizes(
    train=8,
    test=4,
    side=64,
    enlarged=1,
    patches=10,
    layers=(("layer3", 16),),
    pictures=2,
    vit=("--data.count=16", "--optim.batch_size=8", "--optim.epochs=2", "--monitor.health_every=0"),
    fcn=(
        "INPUT.MASKS.CROP", "(65, 65)", "SOLVER.IMS_PER_BATCH", "2", "SOLVER.MAX_ITER", "3",
        "SOLVER.STEPS", "()", "SOLVER.WARMUP_ITERS", "1", "TEST.PRECISE_BN.NUM_ITER", "1",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Demo:
    """Where the pretrained backbone is, where everything goes, and how much is measured, with `trials`
    fine-tunings of each backbone, `at_once` side by side."""

    checkpoint: Path
    out: Path
    sizes: Sizes
    trials: int
    at_once: int

    @property
    def scenes(self) -> list[object]:
        """The options of images and input, of both frozen programs."""
        side = self.sizes.side
        return ["--data.name", "fashion-scenes", "--data.size", side, "--size", side * self.sizes.enlarged]

    def claim(self) -> None:
        """Refuses a folder that holds the numbers of another demo; a new one gets settings.json.

        Raises:
            UserError: it was made with another checkpoint or other sizes.
        """
        own = to_json({"checkpoint": digest_of_file(self.checkpoint), **asdict(self.sizes)}) + "\n"
        path = self.out / SETTINGS
        if not path.exists():
            write_text(path, own)
        elif path.read_bytes() != own.encode():
            raise UserError(
                f"{self.out} holds numbers of another checkpoint or other sizes: remove it, or choose "
                "another --out"
            )


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measures what is not measured yet, prints the table, and returns its numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--run", type=Path, default=Path("runs/demo"), help="folder of the pretraining (default: runs/demo)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/segmentation-demo"),
        help="folder of the demo (default: runs/segmentation-demo)",
    )
    parser.add_argument("--trials", type=int, default=3, help="fine-tunings of each (default: 3)")
    parser.add_argument(
        "--at-once", type=int, default=cpu_count(), help="fine-tunings side by side (default: one a core)"
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes, whose numbers mean nothing")
    asked = parser.parse_args(argv)
    at_least("--trials", asked.trials, 1)
    at_least("--at-once", asked.at_once, 1)
    began = time.monotonic()
    sizes = QUICK if asked.quick else Sizes()
    demo = Demo(pretrained_in(asked.run), asked.out, sizes, asked.trials, asked.at_once)
    demo.claim()

    found = probe(demo)
    tuned = fine_tune(demo)
    attention = attend(demo)
    lines = [
        *probe_lines(found, [layer for layer, _ in sizes.layers], f"{sizes.test} many-object scenes"),
        "",
        *fcn_lines(tuned, asked.trials),
        "",
        *jaccard_lines(attention, (VIT, UNTRAINED_VIT)),
    ]
    say("\n" + "\n".join(lines))
    numbers = {**found, **tuned, **attention}
    write_text(demo.out / TABLE, to_json({"metrics": numbers, "table": lines}) + "\n")
    say(f"Pictures and {TABLE}: {demo.out}")
    seconds = time.monotonic() - began
    say(f"The demo took {seconds:.0f} s.")
    return {"task": "segmentation-demo", "metrics": {**numbers, "seconds": seconds}}


def probe(demo: Demo) -> dict[str, float]:
    """mIoU of every probe, layer and network as LAYER/NETWORK/PROBE/…, and the paired differences by images
    as LAYER/SimSiam - NETWORK/PROBE/…; the layers are measured side by side."""
    with ThreadPoolExecutor(demo.at_once) as threads:
        of_layers = threads.map(lambda layer: _probe_layer(demo, *layer), demo.sizes.layers)
        return {name: value for numbers in of_layers for name, value in numbers.items()}


def _probe_layer(demo: Demo, layer: str, patch: int) -> dict[str, float]:
    """The numbers of `probe` for one layer, and for pixels of patches as large as its cells."""
    folder = demo.out / "probes" / layer
    program = "eval/segmentation.py"
    options = [
        *demo.scenes,
        "--data.count", demo.sizes.train, "--data.test_count", demo.sizes.test,
        "--patches-per-image", demo.sizes.patches,
    ]  # fmt: skip
    picture = ["--pictures", folder / "simsiam.png", "--picture-count", demo.sizes.pictures]
    simsiam = _kept(folder / "simsiam", program, demo.checkpoint, "--layers", layer, *options, *picture)
    untrained = _untrained(simsiam["provenance"]["architecture"])
    records = {
        SIMSIAM: simsiam,
        UNTRAINED: _kept(folder / "untrained", program, untrained, "--layers", layer, *options),
        PIXELS: _kept(folder / "pixels", program, "pixels", "--pixel-patch", patch, *options),
    }
    numbers: dict[str, float] = {}
    for network, record in records.items():
        numbers |= _below(f"{layer}/{network}", record["metrics"], "miou")
    for other in (UNTRAINED, PIXELS):
        compared = stage("eval/compare.py", folder / f"{other}.json", folder / "simsiam.json")["metrics"]
        numbers |= _below(f"{layer}/{SIMSIAM} - {other}", compared, "miou", drop="compare/")
    return numbers


def fine_tune(demo: Demo) -> dict[str, float]:
    """Metrics of the FCN from SimSiam's weights, those from none below other/, and paired differences below
    compare/; the pictures of the first trials are copied to the demo's folder."""
    sizes, folder = demo.sizes, demo.out / "fcn"
    converted = folder / "simsiam.pkl"
    if not (converted.exists() and converted.with_suffix(".yaml").exists()):
        folder.mkdir(parents=True, exist_ok=True)
        stage("convert/to_d2.py", demo.checkpoint, converted, "--force")
    scenes = ["SCENES.TRAIN", sizes.train, "SCENES.TEST", sizes.test, "SCENES.SIZE", sizes.side]
    results = stage(
        "eval/detection.py", "--config", CONFIG, "--weights", converted, "--compare", "scratch",
        "--trials", demo.trials, "--at-once", demo.at_once, "--run", folder / "trials", "--resume",
        *scenes, *sizes.fcn,
    )["metrics"]  # fmt: skip
    for start in ("simsiam", "scratch"):
        picture = folder / "trials" / start / "trial-0" / "predictions.png"
        shutil.copyfile(picture, demo.out / f"fcn-{start}.png")
    return {f"fcn/{name}": value for name, value in results.items() if "mIoU" in name}


def attend(demo: Demo) -> dict[str, float]:
    """The Jaccard indices of the attention of a small ViT after DINO and without, as NETWORK/jaccard/…, and
    their paired difference; the pictures are in the folders of the networks."""
    sizes, folder = demo.sizes, demo.out / "attention"
    run = folder / "dino"
    trained = run / "checkpoint.pth"
    if not (folder / "trained" / "record.json").exists():
        stage("pretrain/main.py", "--config", VIT_CONFIG, "--run.dir", run, "--resume", *sizes.vit)
    options = [*demo.scenes, "--data.count", sizes.test, "--pictures", sizes.pictures, "--show", "attention"]
    first = _shown(folder / "trained", trained, options)
    second = _shown(folder / "untrained", f"random:{first['provenance']['architecture']['name']}", options)
    numbers = _below(VIT, first["metrics"], "jaccard") | _below(UNTRAINED_VIT, second["metrics"], "jaccard")
    compared = stage(
        "eval/compare.py", folder / "untrained" / "record.json", folder / "trained" / "record.json",
        "--setting", "best-head-of-object",
    )["metrics"]  # fmt: skip
    return numbers | _below(f"{VIT} - {UNTRAINED_VIT}", compared, "", drop="compare/")


def _kept(stem: Path, program: str, *arguments: object) -> dict[str, Any]:
    """The record STEM.json of an evaluator, which is called where there is none; what a killed call left is
    removed first.

    Raises:
        UserError: the record or what lies beside it is damaged.
    """
    record = stem.with_suffix(".json")
    if record.exists():
        return _read(record)
    stem.parent.mkdir(parents=True, exist_ok=True)
    for left in (".npz", ".png"):
        stem.with_suffix(left).unlink(missing_ok=True)
    return stage(program, *arguments, "--record", record)


def _shown(folder: Path, network: object, options: Sequence[object]) -> dict[str, Any]:
    """The record of `siamtransfer attention` in a folder, which is made anew where it has none."""
    record = folder / "record.json"
    if record.exists():
        return _read(record)
    shutil.rmtree(folder, ignore_errors=True)
    return stage("eval/attention.py", network, folder, *options)


def _read(record: Path) -> dict[str, Any]:
    from siamtransfer.records.predictions import read_record  # imports torch

    return read_record(record).record


def _untrained(architecture: dict[str, Any]) -> str:
    """The baseline of this ResNet's shape, as random:resnet18:width=16:stem=imagenet."""
    return "random:{name}:width={width}:stem={stem}".format_map(architecture)


def _below(prefix: str, metrics: dict[str, float], word: str, *, drop: str = "") -> dict[str, float]:
    """The metrics whose names hold `word`, below a prefix and without the prefix `drop`."""
    return {f"{prefix}/{name.removeprefix(drop)}": value for name, value in metrics.items() if word in name}


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"  # of the programs: sums then have one order on machines of any size
    run(main)
