"""Fine-tunes a detector from a backbone and scores it: Pascal VOC, COCO, own data or the embedded scenes.

    python convert/to_d2.py runs/demo/checkpoint.pth OUT.pkl
    python eval/detection.py --config configs/detection/scenes-fpn.yaml --weights OUT.pkl
    python eval/detection.py --config configs/detection/voc07-c4-9k.yaml --weights OUT.pkl --gpus 8 --trials 5
    python eval/detection.py … --compare OTHER.pkl --trials 5   two weights, and their paired difference
    python eval/detection.py … --compare scratch --trials 5     the same against no weights
    python eval/detection.py … --search                         the rate, chosen on a held-out part of train
    python eval/detection.py … --scale-to 2                     the schedule for 8 GPUs rewritten for 2
    python eval/detection.py … --train MINE:trainval --test MINE:test    own data in VOC's layout
    python eval/detection.py … --resume                         go on after a stop, a crash or a kill

Detectron2 trains; its keys may follow as KEY VALUE pairs (SOLVER.BASE_LR 0.04). OUT.yaml beside OUT.pkl says
how the weights take an image; a configuration that says otherwise is refused, and after loading every tensor
of the trunk is compared with the file. Data are named by Detectron2's names (voc_2007_trainval …, below
--root or DETECTRON2_DATASETS), PATH:SPLIT for VOC's layout, ANNOTATIONS.json@IMAGES for COCO's, or
fashion-scenes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from siamtransfer.cli import run
from siamtransfer.detection.data.datasets import DetectionData, open_detection_data
from siamtransfer.detection.detectron2.config import scenes
from siamtransfer.detection.engines import SCRATCH, Arm, Detectron2Engine, Task, TorchvisionEngine
from siamtransfer.detection.layered_config import LayeredConfig, read_layered_config
from siamtransfer.detection.metrics.evaluate import ApKind
from siamtransfer.detection.search import SearchGrid, hold_out
from siamtransfer.detection.trials import MAIN, paired, summarise, verdict
from siamtransfer.records.record import record
from siamtransfer.utils.checks import above, at_least, within
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import write_text
from siamtransfer.utils.log import say
from siamtransfer.utils.strict_json import to_json

SETTINGS = "settings.json"


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """The story of a run: configuration, weights, data, a search where asked, trials, and the record."""
    asked = parse(argv)
    layers = read_layered_config(asked.config, asked.settings)
    engine = build_engine(asked, layers)
    arms = build_arms(asked, engine)
    data = open_data(asked, layers)
    say(str(data))
    study = Study(
        asked, engine, data, asked.metric or data.test_split.kind, asked.run or default_run(asked, arms)
    )
    for sentence in remarks(arms[0]):
        say(sentence)
    claim(study, arms)

    chosen = [search(study, arm) if asked.search else {} for arm in arms]
    trials = run_trials(study, arms, chosen)

    metrics = summarise([trial["metrics"] for trial in trials[0]])
    say_summary(arms[0].name, metrics)
    if len(arms) > 1:
        of_other = summarise([trial["metrics"] for trial in trials[1]])
        say_summary(arms[1].name, of_other)
        differences = paired(*[[trial["metrics"] for trial in of_arm] for of_arm in trials])
        for sentence in verdict(differences, (arms[0].name, arms[1].name)):
            say(sentence)
        metrics |= {f"other/{name}": value for name, value in of_other.items()} | differences
    return describe(study, arms, chosen, trials, metrics)


@dataclass(frozen=True)
class Study:
    """What all trials of a run share."""

    asked: argparse.Namespace
    engine: Detectron2Engine | TorchvisionEngine
    data: DetectionData
    metric: ApKind
    run: Path

    def folder(self, arm: Arm) -> Path:
        """The weights' own part of the run folder."""
        return self.run / arm.name


def run_trials(
    study: Study, arms: Sequence[Arm], chosen: Sequence[dict[str, float]]
) -> list[list[dict[str, Any]]]:
    """The results of all trials of each arm, seeds counted from --seed; those that are done are read."""
    asked = study.asked
    seeds = range(asked.seed, asked.seed + asked.trials)
    tasks = [
        Task(
            arm, f"{arm.name}, seed {seed}", study.folder(arm) / f"trial-{seed}",
            seed, study.data, study.metric, keys,
        )
        for arm, keys in zip(arms, chosen, strict=True)
        for seed in seeds
    ]  # fmt: skip
    results = study.engine.run(tasks)
    return [results[place : place + len(seeds)] for place in range(0, len(results), len(seeds))]


def search(study: Study, arm: Arm) -> dict[str, float]:
    """The rate and weight decay with the best AP on the held-out part of the training images."""
    asked = study.asked
    grid = SearchGrid(tuple(asked.rates), tuple(asked.decays), asked.held_out)
    part = hold_out(study.data, grid.share)
    tasks = [
        Task(
            arm,
            f"{arm.name}, rate {rate:g}, weight decay {decay:g}",
            study.folder(arm) / "search" / f"rate-{rate:g}-decay-{decay:g}",
            asked.seed,
            part,
            study.metric,
            {"SOLVER.BASE_LR": rate, "SOLVER.WEIGHT_DECAY": decay},
        )
        for rate, decay in grid.cells()
    ]
    results = study.engine.run(tasks)
    scores = [result["metrics"]["detection/AP"] for result in results]
    best, task = max(zip(scores, tasks, strict=True), key=lambda pair: pair[0])
    say(f"chosen on {part.test_split.name}: {task.name} with AP {best:.2f}")
    return dict(task.keys)


def build_engine(asked: argparse.Namespace, layers: LayeredConfig) -> Detectron2Engine | TorchvisionEngine:
    if asked.engine == "detectron2":
        return Detectron2Engine(
            layers,
            gpus=asked.gpus,
            at_once=asked.at_once,
            scale=asked.scale_to,
            evaluate_only=asked.eval_only,
        )
    if asked.gpus > 1 or asked.at_once > 1 or asked.scale_to:
        raise UserError("--gpus, --at-once and --scale-to are Detectron2's; leave them out with torchvision")
    return TorchvisionEngine(layers, evaluate_only=asked.eval_only)


def build_arms(asked: argparse.Namespace, engine: Detectron2Engine | TorchvisionEngine) -> list[Arm]:
    """The weights, and those to compare with, each under a name of its own."""
    if asked.weights == SCRATCH:
        raise UserError(
            "`scratch` goes with --compare; to train from scratch alone, leave --weights out and lay "
            "configs/detection/scratch.yaml over the configuration by another --config"
        )
    first = engine.arm(asked.weights)
    if asked.compare is None:
        return [first]
    other = engine.scratch(first) if asked.compare == SCRATCH else engine.arm(asked.compare)
    return [first, replace(other, name=f"{other.name}-other") if other.name == first.name else other]


def open_data(asked: argparse.Namespace, layers: LayeredConfig) -> DetectionData:
    """The data that the command line names, or else the configuration."""
    names = {}
    for part, given in (("TRAIN", asked.train), ("TEST", asked.test)):
        if given is None and f"DATASETS.{part}" not in layers:
            raise UserError(f"no {part.lower()} data are named: give --{part.lower()} or DATASETS.{part}")
        stated = given or layers[f"DATASETS.{part}"].value
        names[part] = stated if isinstance(stated, str) else "+".join(stated)
    kind, counts = scenes(layers)
    return open_detection_data(names["TRAIN"], names["TEST"], root=asked.root, kind=kind, scenes=counts)


def default_run(asked: argparse.Namespace, arms: Sequence[Arm]) -> Path:
    return Path("runs/detection") / "-".join(
        [*(file.stem for file in asked.config), *(arm.name for arm in arms)]
    )


def claim(study: Study, arms: Sequence[Arm]) -> None:
    """Notes in the run folder what the run is, or refuses a folder in which another one is."""
    path, asked = study.run / SETTINGS, study.asked
    mine = json.loads(to_json(identity(study, arms)))
    if not path.is_file():
        if asked.eval_only:
            raise UserError(f"--eval-only: {study.run} holds no run; name the folder of one with --run")
        write_text(path, to_json(mine) + "\n")
        return
    if not asked.resume and not asked.eval_only:
        raise UserError(
            f"{study.run} holds a run already: go on with it by --resume, or choose another --run"
        )
    theirs = json.loads(path.read_text())
    free = {"metric"} if asked.eval_only else set()
    differing = [
        f"{key} {theirs.get(key)!r} -> {mine.get(key)!r}"
        for key in sorted((theirs.keys() | mine.keys()) - free)
        if theirs.get(key) != mine.get(key)
    ]
    if differing:
        raise UserError(
            f"the run in {study.run} has another configuration ({'; '.join(differing)}): give it the same, "
            "or "
            "choose another --run"
        )


def identity(study: Study, arms: Sequence[Arm]) -> dict[str, Any]:
    """Every choice that moves a number; the count of trials may grow."""
    asked, data = study.asked, study.data
    grid = {"rates": asked.rates, "decays": asked.decays, "held_out": asked.held_out} if asked.search else {}
    return {
        "engine": study.engine.name,
        "metric": study.metric,
        "train": data.train_fingerprint,
        "test": data.test_fingerprint,
        **{f"weights/{place}": arm.digest or arm.name for place, arm in enumerate(arms)},
        **{f"search/{key}": value for key, value in grid.items()},
        **study.engine.settings(arms[0], data),
    }


def remarks(arm: Arm) -> list[str]:
    """What people should know before the numbers come."""
    scaled = [f"{key}: {old} -> {new}" for key, (old, new) in arm.protocol.get("scaled", {}).items()]
    not_comparable = arm.protocol.get("not_comparable")
    return [
        *arm.protocol.get("norms_changed", []),
        *([f"scaled: {'; '.join(scaled)}"] if scaled else []),
        *([f"not comparable with published numbers: {not_comparable}"] if not_comparable else []),
    ]


def say_summary(name: str, metrics: dict[str, float]) -> None:
    for number in MAIN:
        if number in metrics:
            say(f"{name:24} {number:18} {metrics[number]:6.2f}")
        elif f"{number}/mean" in metrics:
            mean, std, half = (metrics[f"{number}/{part}"] for part in ("mean", "std", "ci95"))
            say(f"{name:24} {number:18} {mean:6.2f}  std {std:.2f}  95 % interval ± {half:.2f}")


def describe(
    study: Study,
    arms: Sequence[Arm],
    chosen: Sequence[dict[str, float]],
    trials: Any,
    metrics: dict[str, float],
) -> dict[str, Any]:
    """The record."""
    asked = study.asked
    searched = {
        "search": {"rates": asked.rates, "decays": asked.decays},
        "chosen_on": f"{asked.held_out:g} of the training images, held out, by detection/AP",
        "chosen": {arm.name: keys for arm, keys in zip(arms, chosen, strict=True)},
    }
    protocol = {
        "engine": study.engine.name,
        "configurations": [file.name for file in asked.config],
        "settings": study.engine.settings(arms[0], study.data),
        "data": study.data.describe(),
        "metric": study.metric,
        "trials": asked.trials,
        "seeds": [trial["seed"] for trial in trials[0]],
        "interval": "Student's t over trials, 95 %" if asked.trials > 1 else None,
        "model": "the last step's",
        "gpus": asked.gpus,
        **(searched if asked.search else {}),
        **arms[0].protocol,
    }
    sides = [
        {"name": arm.name, "weights_digest": arm.digest, "trials": of_arm}
        for arm, of_arm in zip(arms, trials, strict=True)
    ]
    return record(
        "detection",
        metrics,
        protocol,
        weights=asked.weights,
        weights_digest=arms[0].digest,
        train_fingerprint=study.data.train_fingerprint,
        test_fingerprint=study.data.test_fingerprint,
        arms=sides,
        run=str(study.run),
        engine=study.engine.version,
    )


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="detection", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--config",
        type=Path,
        action="append",
        required=True,
        metavar="FILE",
        help="of Detectron2's kind; given several times, they are laid over each other",
    )
    add("--weights", metavar="OUT.pkl", help="from convert/to_d2.py, OUT.yaml beside it")
    add("--compare", metavar="OTHER.pkl", help="train these too, with the same seeds; or scratch")
    add("--engine", choices=["detectron2", "torchvision"], default="detectron2")
    add("--train", help="training data, instead of DATASETS.TRAIN; several parts joined by +")
    add("--test", help="test data, instead of DATASETS.TEST")
    add(
        "--root",
        type=Path,
        help="folder of VOC2007, VOC2012 and coco (default: DETECTRON2_DATASETS, ./datasets)",
    )
    add("--metric", choices=get_args(ApKind), help="default: that of the test data's format")
    add("--run", type=Path, metavar="DIR", help="folder of the run (default: below runs/detection)")
    add(
        "--resume",
        action="store_true",
        help="go on with the run in that folder; more --trials may be asked for",
    )
    add("--eval-only", action="store_true", help="score the trained models of the run again")
    add("--trials", type=int, default=1, metavar="N", help="trainings with seeds from --seed on")
    add("--seed", type=int, default=0, help="of the first trial")
    add("--gpus", type=int, default=1, metavar="N", help="GPUs of this machine to train on")
    add("--at-once", type=int, default=1, metavar="N", help="trainings side by side, on the CPU")
    add("--scale-to", type=int, metavar="N", help="rewrite the schedule, which is for 8 GPUs, for N")
    add("--search", action="store_true", help="choose rate and weight decay on a held-out part of train")
    add("--rates", type=float, nargs="+", default=[0.01, 0.02, 0.04, 0.08], help="SOLVER.BASE_LR to try")
    add("--decays", type=float, nargs="+", default=[1e-4], help="SOLVER.WEIGHT_DECAY to try")
    add("--held-out", type=float, default=0.1, help="share of the training images that the search scores on")
    add("settings", nargs="*", metavar="KEY VALUE", help="keys of Detectron2's configuration")
    asked = parser.parse_intermixed_args(argv)
    at_least("--trials", asked.trials, 1)
    at_least("--seed", asked.seed, 0)
    at_least("--gpus", asked.gpus, 1)
    at_least("--at-once", asked.at_once, 1)
    at_least("--scale-to", asked.scale_to, 1)
    within("--held-out", asked.held_out, 0, 0.9)
    for rate in asked.rates:
        above("--rates", rate, 0)
    for decay in asked.decays:
        at_least("--decays", decay, 0)
    return asked


if __name__ == "__main__":
    run(main)
