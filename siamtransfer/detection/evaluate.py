"""The detection evaluator: fine-tunes and scores as its options say, and makes the record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from siamtransfer.detection.config import DetectionOptions
from siamtransfer.detection.detectron2.lr_scaling import PUBLISHED_GPUS
from siamtransfer.detection.engines import SCRATCH, DetectionEngine, Detectron2Engine, TorchvisionEngine
from siamtransfer.detection.finetune_run import Initialization
from siamtransfer.detection.layered_config import LayeredConfig, read_layered_config
from siamtransfer.detection.lr_search import SearchGrid, default_rates
from siamtransfer.detection.study import DetectionStudy
from siamtransfer.detection.tasks.registry import open_task
from siamtransfer.detection.trials import (
    difference_statements,
    paired_differences,
    table_lines,
    trial_statistics,
)
from siamtransfer.records.record import record
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say


def evaluate(options: DetectionOptions, files: Sequence[Path]) -> dict[str, Any]:
    """Configuration (`files` in layers), weights, data, a search if asked for, trials; returns the record."""
    layered = read_layered_config(list(files), options.settings)
    engine = build_engine(options, layered)
    initializations = build_initializations(options, engine)
    task = open_task(options, layered)
    study = DetectionStudy(
        engine,
        initializations,
        task,
        Path(options.run) if options.run else default_folder(files, initializations),
        range(options.seed, options.seed + options.trials),
        build_grid(options, layered) if options.search else None,
        options.eval_only,
    )
    for sentence in initializations[0].remarks():
        say(sentence)
    for start in initializations[1:]:
        for sentence in start.assumptions:
            say(f"{start.name}: {sentence}")
    for start in initializations:
        engine.check(start, task)
    study.claim_folder(resume=options.resume)

    chosen = [study.search(initialization) for initialization in initializations]
    trials = study.run(chosen)
    return describe(options, files, study, chosen, trials, summarise(study, trials))


def summarise(study: DetectionStudy, trials: Sequence[list[dict[str, Any]]]) -> dict[str, float]:
    """Prints and returns the statistics of the first initialization; of a second one those under other/, and
    the paired differences."""
    names = [initialization.name for initialization in study.initializations]
    mains = study.task.mains
    metrics = [[trial["metrics"] for trial in results] for results in trials]
    statistics = [trial_statistics(values) for values in metrics]
    for name, values in zip(names, statistics, strict=True):
        for line in table_lines(name, values, mains):
            say(line)
    over_images = image_intervals(study)
    if len(statistics) == 1:
        return statistics[0] | over_images
    differences = paired_differences(metrics[0], metrics[1], mains)
    for sentence in difference_statements(differences, (names[0], names[1]), mains):
        say(sentence)
    return (
        statistics[0]
        | {f"other/{name}": value for name, value in statistics[1].items()}
        | differences
        | over_images
    )


def image_intervals(study: DetectionStudy) -> dict[str, float]:
    """Prints and returns the intervals over the test images, of one trial and where the task has them."""
    if len(study.seeds) > 1:
        return {}
    folders = [study.trial_folder(start, study.seeds[0]) for start in study.initializations]
    intervals = study.task.image_intervals(folders)
    for name, low in intervals.items():
        if name.endswith("/images_low"):
            metric = name.removesuffix("/images_low")
            high = intervals[f"{metric}/images_high"]
            say(
                f"{metric}: {low:.2f} to {high:.2f}, 95 % interval over the test images, of this one training"
            )
    return intervals


def build_engine(options: DetectionOptions, layered: LayeredConfig) -> DetectionEngine:
    if options.engine == "detectron2":
        if options.head != "fcn":
            raise UserError(
                f"--head {options.head} goes with --engine torchvision; Detectron2's is MODEL.SEM_SEG_HEAD"
            )
        return Detectron2Engine(layered, gpus=options.gpus, at_once=options.at_once, scale=options.scale_to)
    if options.gpus > 1 or options.at_once > 1 or options.scale_to:
        raise UserError("--gpus, --at-once and --scale-to are Detectron2's; leave them out with torchvision")
    return TorchvisionEngine(layered, options.head)


def build_grid(options: DetectionOptions, layered: LayeredConfig) -> SearchGrid:
    """What --search tries."""
    scale = options.scale_to / PUBLISHED_GPUS if options.scale_to else 1.0
    lrs = tuple(options.lrs) or default_rates(layered, scale)
    if not options.lrs:
        say(f"--search tries the learning rates {', '.join(f'{lr:g}' for lr in lrs)}; --lrs gives others")
    return SearchGrid(lrs, tuple(options.weight_decays), options.held_out)


def build_initializations(options: DetectionOptions, engine: DetectionEngine) -> list[Initialization]:
    """That of --weights and that of --compare, each under a name of its own."""
    if options.weights == SCRATCH:
        raise UserError(
            "`scratch` goes with --compare; to train from scratch alone, leave --weights out and lay "
            "configs/detection/scratch.yaml over the configuration by another --config"
        )
    first = engine.initialization(options.weights)
    if options.compare is None:
        return [first]
    second = (
        engine.from_scratch(first) if options.compare == SCRATCH else engine.initialization(options.compare)
    )
    return [first, replace(second, name=f"{second.name}-other") if second.name == first.name else second]


def default_folder(files: Sequence[Path], initializations: Sequence[Initialization]) -> Path:
    names = [*(file.stem for file in files), *(start.name for start in initializations)]
    return Path("runs/detection") / "-".join(names)


def describe(
    options: DetectionOptions,
    files: Sequence[Path],
    study: DetectionStudy,
    chosen: Sequence[dict[str, float]],
    trials: Sequence[list[dict[str, Any]]],
    metrics: dict[str, float],
) -> dict[str, Any]:
    """The record."""
    first = study.initializations[0]
    search = {}
    if study.grid is not None:
        search = {
            "search": {"rates": list(study.grid.lrs), "decays": list(study.grid.weight_decays)},
            "chosen_on": f"{options.held_out:g} of the training images, held out, by {study.task.headline}",
            "chosen": {start.name: keys for start, keys in zip(study.initializations, chosen, strict=True)},
        }
    over_images = "resampled test images, 95 %" if any("/images_low" in name for name in metrics) else None
    protocol = {
        "engine": study.engine.name,
        "configurations": [file.name for file in files],
        "settings": study.engine.settings(first, study.task),
        "data": study.task.describe(),
        "metric": study.task.metric,
        "trials": options.trials,
        "seeds": [trial["seed"] for trial in trials[0]],
        "interval": "Student's t over trials, 95 %" if options.trials > 1 else over_images,
        "model": "the last step's",
        "gpus": options.gpus,
        **search,
        **first.protocol,
    }
    arms = [
        {
            "name": start.name,
            "weights_digest": start.digest,
            "reading": start.reading.as_dict() if start.reading else None,
            "assumptions": start.assumptions,
            "trials": results,
        }
        for start, results in zip(study.initializations, trials, strict=True)
    ]
    return record(
        study.task.evaluation,
        metrics,
        protocol,
        weights=options.weights,
        weights_digest=first.digest,
        train_fingerprint=study.task.train_fingerprint,
        test_fingerprint=study.task.test_fingerprint,
        arms=arms,
        run=str(study.folder),
        engine=study.engine.version,
    )
