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
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from siamtransfer.cli import run
from siamtransfer.detection.data.configured import open_configured_data
from siamtransfer.detection.engines import SCRATCH, DetectionEngine, Detectron2Engine, TorchvisionEngine
from siamtransfer.detection.finetune_run import Initialization
from siamtransfer.detection.layered_config import LayeredConfig, read_layered_config
from siamtransfer.detection.lr_search import SearchGrid
from siamtransfer.detection.metrics.evaluate import ApKind
from siamtransfer.detection.study import DetectionStudy
from siamtransfer.detection.trials import (
    difference_statements,
    paired_differences,
    table_lines,
    trial_statistics,
)
from siamtransfer.records.record import record
from siamtransfer.utils.checks import above, at_least, within
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """The story of a study: configuration, weights, data, a search if asked for, trials, and the record."""
    args = parse(argv)
    layered = read_layered_config(args.config, args.settings)
    engine = build_engine(args, layered)
    initializations = build_initializations(args, engine)
    data = open_configured_data(layered, args.train, args.test, args.root)
    say(str(data))
    study = DetectionStudy(
        engine,
        initializations,
        data,
        args.metric or data.test_split.kind,
        args.run or default_folder(args, initializations),
        range(args.seed, args.seed + args.trials),
        SearchGrid(tuple(args.rates), tuple(args.decays), args.held_out) if args.search else None,
        args.eval_only,
    )
    for sentence in initializations[0].remarks():
        say(sentence)
    study.claim_folder(resume=args.resume)

    chosen = [study.search(initialization) for initialization in initializations]
    trials = study.run(chosen)
    return describe(args, study, chosen, trials, summarise(study, trials))


def summarise(study: DetectionStudy, trials: Sequence[list[dict[str, Any]]]) -> dict[str, float]:
    """Prints and returns the statistics of the first initialization; of a second one those under other/, and
    the paired differences."""
    names = [initialization.name for initialization in study.initializations]
    metrics = [[trial["metrics"] for trial in results] for results in trials]
    statistics = [trial_statistics(values) for values in metrics]
    for name, values in zip(names, statistics, strict=True):
        for line in table_lines(name, values):
            say(line)
    if len(statistics) == 1:
        return statistics[0]
    differences = paired_differences(metrics[0], metrics[1])
    for sentence in difference_statements(differences, (names[0], names[1])):
        say(sentence)
    return statistics[0] | {f"other/{name}": value for name, value in statistics[1].items()} | differences


def build_engine(args: argparse.Namespace, layered: LayeredConfig) -> DetectionEngine:
    if args.engine == "detectron2":
        return Detectron2Engine(layered, gpus=args.gpus, at_once=args.at_once, scale=args.scale_to)
    if args.gpus > 1 or args.at_once > 1 or args.scale_to:
        raise UserError("--gpus, --at-once and --scale-to are Detectron2's; leave them out with torchvision")
    return TorchvisionEngine(layered)


def build_initializations(args: argparse.Namespace, engine: DetectionEngine) -> list[Initialization]:
    """That of --weights and that of --compare, each under a name of its own."""
    if args.weights == SCRATCH:
        raise UserError(
            "`scratch` goes with --compare; to train from scratch alone, leave --weights out and lay "
            "configs/detection/scratch.yaml over the configuration by another --config"
        )
    first = engine.initialization(args.weights)
    if args.compare is None:
        return [first]
    second = engine.from_scratch(first) if args.compare == SCRATCH else engine.initialization(args.compare)
    return [first, replace(second, name=f"{second.name}-other") if second.name == first.name else second]


def default_folder(args: argparse.Namespace, initializations: Sequence[Initialization]) -> Path:
    names = [*(file.stem for file in args.config), *(start.name for start in initializations)]
    return Path("runs/detection") / "-".join(names)


def describe(
    args: argparse.Namespace,
    study: DetectionStudy,
    chosen: Sequence[dict[str, float]],
    trials: Sequence[list[dict[str, Any]]],
    metrics: dict[str, float],
) -> dict[str, Any]:
    """The record."""
    first = study.initializations[0]
    search = {}
    if args.search:
        search = {
            "search": {"rates": args.rates, "decays": args.decays},
            "chosen_on": f"{args.held_out:g} of the training images, held out, by detection/AP",
            "chosen": {start.name: keys for start, keys in zip(study.initializations, chosen, strict=True)},
        }
    protocol = {
        "engine": study.engine.name,
        "configurations": [file.name for file in args.config],
        "settings": study.engine.settings(first, study.data),
        "data": study.data.describe(),
        "metric": study.metric,
        "trials": args.trials,
        "seeds": [trial["seed"] for trial in trials[0]],
        "interval": "Student's t over trials, 95 %" if args.trials > 1 else None,
        "model": "the last step's",
        "gpus": args.gpus,
        **search,
        **first.protocol,
    }
    arms = [
        {"name": start.name, "weights_digest": start.digest, "trials": results}
        for start, results in zip(study.initializations, trials, strict=True)
    ]
    return record(
        "detection",
        metrics,
        protocol,
        weights=args.weights,
        weights_digest=first.digest,
        train_fingerprint=study.data.train_fingerprint,
        test_fingerprint=study.data.test_fingerprint,
        arms=arms,
        run=str(study.folder),
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
    args = parser.parse_intermixed_args(argv)
    at_least("--trials", args.trials, 1)
    at_least("--seed", args.seed, 0)
    at_least("--gpus", args.gpus, 1)
    at_least("--at-once", args.at_once, 1)
    at_least("--scale-to", args.scale_to, 1)
    within("--held-out", args.held_out, 0, 0.9)
    for rate in args.rates:
        above("--rates", rate, 0)
    for decay in args.decays:
        at_least("--decays", decay, 0)
    return args


if __name__ == "__main__":
    run(main)
