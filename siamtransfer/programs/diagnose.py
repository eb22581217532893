"""Looks at representations without training on them: collapse, rank, spectrum, views, clusters, similarity.

    python eval/diagnose.py runs/demo/checkpoint.pth
    python eval/diagnose.py runs/a/checkpoint.pth runs/b/checkpoint.pth random:resnet50 --spectrum spectra.png
    python eval/diagnose.py swav.pth.tar --data.name imagenet --data.root /data/imagenet --views 50
    python eval/diagnose.py --train-features train.npz --test-features test.npz      features of any framework
    python eval/diagnose.py a.pth b.pth c.pth --accuracy 57.1 60.2 55.0              can the rules be trusted?

A number is called NAME/backbone or NAME/projection for what it was measured on: of our own checkpoints the
projector is rebuilt, of foreign ones only the backbone is known. Covariance, tolerance and CKA of backbones
are of all images; projections, and what looks at pairs, are of a sample (--sample); alignment and LiDAR are
of augmented views (--images, --views, --recipe). With several checkpoints a name begins with the checkpoint's
place (1/rankme/backbone), each pair is compared, and the label-free rules choose among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from siamtransfer.backbones.feature_layers import OUTPUT, FeatureLayers
from siamtransfer.cli import run
from siamtransfer.cli.legacy import Parser, parse
from siamtransfer.distributed.runtime import Runtime, start_runtime
from siamtransfer.evaluation.diagnostics import measures
from siamtransfer.evaluation.diagnostics.projector import project, read_projector
from siamtransfer.evaluation.diagnostics.representation import (
    GUIDE,
    Representation,
    compare,
    measure,
    measurement,
    write_spectra,
)
from siamtransfer.evaluation.diagnostics.selection import choose, score_rules, validity
from siamtransfer.evaluation.frozen_model import (
    EvaluationConfig,
    FrozenModel,
    labelled_features,
    open_frozen_model,
)
from siamtransfer.features.augmented import repeat_view, view_features
from siamtransfer.records.predictions import publish
from siamtransfer.records.record import record
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import refuse_outputs
from siamtransfer.utils.log import say
from siamtransfer.views.config import ViewsConfig
from siamtransfer.views.recipes import recipe
from siamtransfer.views.view_spec import Recipe

DEFAULT_RECIPE = "simsiam"


@dataclass(eq=False)
class ModelFeatures:
    """Of a checkpoint, a baseline or a pair of feature files: its representations by place, which is
    `backbone` (or the chosen layers) and, of our own checkpoints, also `projection`."""

    name: str
    places: dict[str, Representation]
    protocol: dict[str, Any]
    provenance: dict[str, Any]


def main(argv: list[str] | None = None) -> dict[str, Any] | None:
    """The command line; returns the record on rank 0."""
    config, asked = parse(EvaluationConfig, description=__doc__, arguments=_arguments, argv=argv)
    check(config, asked)
    with start_runtime(config.device, config.precision) as runtime:
        portraits = portray_checkpoints(config, asked, runtime) or [portray_files(config, asked, runtime)]
        if not runtime.is_main:
            return None
        tell_limits(portraits)
        examined = [examine(portrait, asked, runtime.device) for portrait in portraits]
        pairs = compare_pairs(portraits, runtime.device)
    measured = [numbers for numbers, _ in examined]
    show(portraits, measured, pairs)
    metrics = join(measured) | pairs | select(measured, asked.accuracy)
    if asked.spectrum:
        spectra = {
            f"[{n}] {portrait.name} ({where})": eigenvalues
            for n, (portrait, (_, own)) in enumerate(zip(portraits, examined, strict=True), 1)
            for where, eigenvalues in own.items()
        }
        write_spectra(Path(asked.spectrum), spectra)
        say(f"wrote {asked.spectrum}: the spectra of the covariances")
    protocol = {
        "part": asked.part,
        "sample": asked.sample,
        "seed": asked.seed,
        **measurement(asked.restarts, asked.seed),
        "accuracies": asked.accuracy,
        "checkpoints": [portrait.protocol for portrait in portraits],
    }
    provenance = [portrait.provenance for portrait in portraits]
    return publish(record("diagnose", metrics, protocol, checkpoints=provenance), None, config.record)


def check(config: EvaluationConfig, asked: Any) -> None:
    """Raises UserError for options that mean nothing, before any work."""
    for option in ("images", "sample"):
        if (value := getattr(asked, option)) < 0 or value == 1:
            raise UserError(
                f"--{option} must be at least 2, or 0 for {'none' if option == 'images' else 'all'}"
            )
    if asked.views < 2:
        raise UserError("--views must be at least 2, for views of one image are compared")
    if asked.restarts < 0:
        raise UserError("--restarts must be at least 1, or 0 for no clusters")
    files = [path for path in (config.train_features, config.test_features) if path]
    if files and asked.checkpoints:
        raise UserError(
            f"give either checkpoints ({', '.join(asked.checkpoints)}) or feature files, not both"
        )
    if asked.recipe is not None:
        recipe(asked.recipe)
        if files:
            raise UserError("--recipe makes views of images, and feature files hold none: leave it out")
    if asked.accuracy is not None and not 2 <= len(asked.accuracy) == len(asked.checkpoints):
        raise UserError(
            f"--accuracy gives {len(asked.accuracy)} numbers for {len(asked.checkpoints)} checkpoints: give "
            "two checkpoints or more, and a number for each"
        )
    if asked.spectrum is not None:
        if Path(asked.spectrum).suffix != ".png":
            raise UserError(f"--spectrum {asked.spectrum} must end in .png")
        for source in [*asked.checkpoints, *files]:
            refuse_outputs(source, [Path(asked.spectrum)], force=True)


def portray_checkpoints(config: EvaluationConfig, asked: Any, runtime: Runtime) -> list[ModelFeatures]:
    """Every file is read and every set opened before the slow work begins."""
    subjects = [open_frozen_model(source, config, runtime) for source in asked.checkpoints]
    refuse_other_images(subjects, asked.part)
    recipes = [recipe_of(subject, asked.recipe) for subject in subjects]
    projectors = [
        read_projector(subject.read) if subject.read and config.layers == OUTPUT else None
        for subject in subjects
    ]
    return [portray(*one, asked, runtime) for one in zip(subjects, recipes, projectors, strict=True)]


def portray(
    subject: FrozenModel, made_by: Recipe, projector: nn.Module | None, asked: Any, runtime: Runtime
) -> ModelFeatures:
    """Features of the asked part and of views of some of its images, and the projections of both."""
    images, layers = subject.train if asked.part == "train" else subject.test, subject.config.layers
    assert images is not None
    found, views = subject.features(images, [layers]), None
    assert found.labels is not None
    if subject.backbone is not None and asked.images:
        chosen = measures.sample(len(images), asked.images, asked.seed)
        if runtime.is_main:
            say(f"extracting features of {asked.views} views of {len(chosen)} images by {made_by.name}")
        views = view_features(
            FeatureLayers(subject.backbone, [layers]).eval(), images, repeat_view(made_by, asked.views), runtime,
            seed=asked.seed, indices=chosen, batch=subject.config.batch, workers=subject.workers,
        )  # fmt: skip
    one = Representation(
        found.features, found.labels, measures.sample(len(images), asked.sample, asked.seed), views
    )
    places = {"backbone" if layers == OUTPUT else layers: one}
    if projector is not None:
        rows, labels = one.sample()
        z = project(projector, rows, runtime.device)
        if views is not None:
            flat = project(projector, views.flatten(0, 1), runtime.device)
            views = flat.view(*views.shape[:2], -1)
        places["projection"] = Representation(z, labels, np.arange(len(z)), views)
    protocol = {
        **subject.protocol,
        "recipe": made_by.name if views is not None else None,
        "measured": {where: size(one) for where, one in places.items()},
    }
    return ModelFeatures(subject.source, places, protocol, subject.provenance)


def portray_files(config: EvaluationConfig, asked: Any, runtime: Runtime) -> ModelFeatures:
    """The features of one of two .npz files."""
    found = labelled_features(None, config, runtime, mapped=True)
    part = found.train if asked.part == "train" else found.test
    assert part is not None
    assert part.labels is not None
    sampled = measures.sample(len(part.features), asked.sample, asked.seed)
    one = Representation(part.features, part.labels, sampled, None)
    protocol = {**found.protocol, "recipe": None, "measured": {"backbone": size(one)}}
    return ModelFeatures(found.protocol[asked.part], {"backbone": one}, protocol, found.provenance)


def refuse_other_images(subjects: Sequence[FrozenModel], part: str) -> None:
    """Raises UserError where a set has no such part, or two checkpoints name different images in their
    records."""
    for subject in subjects:
        images, first = (s.train if part == "train" else s.test for s in (subject, subjects[0]))
        if images is None or first is None:
            raise UserError(f"{subject.train.name} has no test part: only --part train can be diagnosed")
        if images.fingerprint != first.fingerprint:
            raise UserError(
                f"{subjects[0].source} is measured on {len(first)} images of {first.name}/{first.split} and "
                f"{subject.source} on {len(images)} of {images.name}/{images.split}, which are not the same: "
                "name one set with --data.name (and --data.size, --data.count)"
            )


def recipe_of(subject: FrozenModel, asked: str | None) -> Recipe:
    """What makes the views: the recipe asked for, or that of the checkpoint's record, or the default, at the
    size and with the normalisation of the evaluation."""
    recorded = ((subject.read.meta.get("config") or {}).get("views") or {}) if subject.read else {}
    views = ViewsConfig(asked or DEFAULT_RECIPE) if asked or not recorded else ViewsConfig.from_dict(recorded)
    transform = subject.transform
    return replace(views, size=transform.crop, mean=list(transform.mean), std=list(transform.std)).build()


def size(one: Representation) -> dict[str, Any]:
    """How much of a representation there is, for the record."""
    rows, dim = one.rows.shape
    views = None if one.views is None else list(one.views.shape[:2])
    return {"rows": rows, "dim": dim, "sampled": len(one.sampled), "images and views": views}


def examine(
    portrait: ModelFeatures, asked: Any, device: torch.device
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """The diagnostics of each place, called NAME/PLACE, and the eigenvalues of its covariance."""
    numbers: dict[str, float] = {}
    spectra: dict[str, Tensor] = {}
    for where, one in portrait.places.items():
        spectra[where] = measures.covariance_eigenvalues(one.rows, device)
        found = measure(one, spectra[where], device, restarts=asked.restarts, seed=asked.seed)
        numbers |= {f"{name}/{where}": value for name, value in found.items()}
    return numbers, spectra


def compare_pairs(portraits: Sequence[ModelFeatures], device: torch.device) -> dict[str, float]:
    """How alike the backbones (or layers) of each two checkpoints are: `cka/backbone/1-2` and so on."""
    if len(portraits) == 1:
        return {}
    where = next(iter(portraits[0].places))
    alike = compare([portrait.places[where] for portrait in portraits], device)
    return {
        f"{name}/{where}/{a + 1}-{b + 1}": value
        for (a, b), found in alike.items()
        for name, value in found.items()
    }


def tell_limits(portraits: Sequence[ModelFeatures]) -> None:
    """Says what is left out, and which numbers cannot be compared."""
    for portrait in portraits:
        where, one = next(iter(portrait.places.items()))
        if "projection" not in portrait.places:
            say(f"{portrait.name}: there are no projections, so every number is of {where}")
        if not one.has_classes:
            say(f"{portrait.name}: no tolerance and clusters, which need one label an image and two classes")
        if one.views is None:
            say(f"{portrait.name}: no alignment and LiDAR, for there are no views of images")
        for where, one in portrait.places.items():
            if one.views is not None and len(one.views) * (one.views.shape[1] - 1) < one.views.shape[2]:
                say(
                    f"{portrait.name}: {len(one.views)} images with {one.views.shape[1]} views are few for "
                    f"LiDAR of width {one.views.shape[2]} ({where}), which then hangs on its delta: take more"
                )
    if len({portrait.protocol["recipe"] for portrait in portraits} - {None}) > 1:
        say("views are made by different recipes: name one with --recipe to compare alignment and LiDAR")


def join(measured: Sequence[dict[str, float]]) -> dict[str, float]:
    """One flat dict; of several checkpoints each name begins with its place, from 1."""
    if len(measured) == 1:
        return measured[0]
    return {f"{n}/{name}": value for n, numbers in enumerate(measured, 1) for name, value in numbers.items()}


def select(measured: Sequence[dict[str, float]], accuracies: list[float] | None) -> dict[str, float]:
    """`selection/RULE/WHERE`: the place of the checkpoint that each label-free rule chooses, from 1, and with
    accuracies how far the rule can be trusted; nothing for a single checkpoint."""
    found: dict[str, float] = {}
    places = dict.fromkeys(name.rpartition("/")[2] for name in measured[0]) if len(measured) > 1 else {}
    for where in places:
        for rule, scores in score_rules(measured, where).items():
            name, chosen = f"selection/{rule}/{where}", choose(scores)
            judged = validity(scores, accuracies) if accuracies else {}
            found |= {f"{name}/{what}": value for what, value in judged.items()}
            told = "".join(f", {what} {value:.3g}" for what, value in judged.items())
            if chosen is None:
                say(f"{name:42}none, for all have collapsed{told}")
            else:
                found[name] = float(chosen + 1)
                say(f"{name:42}[{chosen + 1}]{told}")
    return found


def show(
    portraits: Sequence[ModelFeatures], measured: Sequence[dict[str, float]], pairs: dict[str, float]
) -> None:
    """The table: a column for each checkpoint and place, a row for each diagnostic."""
    for n, portrait in enumerate(portraits, 1):
        say(f"[{n}] {portrait.name}")
    columns = [(n, where) for n, portrait in enumerate(portraits) for where in portrait.places]
    say(f"{'':26}" + "".join(f"{f'[{n + 1}] {where}':>16}" for n, where in columns))
    for name, guide in GUIDE.items():
        values = [measured[n].get(f"{name}/{where}") for n, where in columns]
        if any(value is not None for value in values):
            cells = "".join(f"{'-' if value is None else f'{value:.4g}':>16}" for value in values)
            say(f"{name:26}{cells}   {guide}")
    for name, value in pairs.items():
        say(f"{name:42}{value:.4f}")


def _arguments(parser: Parser) -> None:
    parser.add_argument(
        "checkpoints",
        nargs="*",
        default=[],
        help="checkpoints of any known format, or baselines: random:NAME, torchvision:NAME, pixels",
    )
    parser.add_argument("--part", choices=["train", "test"], default="train", help="which part of the set")
    parser.add_argument(
        "--sample", type=int, default=25600, help="images for projections, pairs and clusters; 0: all"
    )
    parser.add_argument(
        "--images", type=int, default=1000, help="images whose views are taken; 0: no alignment and LiDAR"
    )
    parser.add_argument(
        "--views", type=int, default=10, help="views of each (LiDAR's paper: 50 of 1,000 images)"
    )
    parser.add_argument(
        "--recipe",
        default=None,
        help=f"all views are made like its first; default: the checkpoint's own, else {DEFAULT_RECIPE}",
    )
    parser.add_argument("--restarts", type=int, default=10, help="beginnings of k-means; 0: no clusters")
    parser.add_argument("--seed", type=int, default=0, help="decides sample, views and clusters")
    parser.add_argument(
        "--accuracy",
        type=float,
        nargs="+",
        default=None,
        help="an accuracy of each checkpoint, to see how far the label-free rules can be trusted",
    )
    parser.add_argument("--spectrum", metavar="OUT.png", default=None, help="draw the covariances' spectra")


if __name__ == "__main__":
    run(main)
