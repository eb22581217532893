"""What a head belongs to: the very network, layers, transform and form of images that its features came from.

A head that is used with anything else would label without a word of warning, and wrongly; so it is refused.
"""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from siamtransfer.checkpoints.assumptions import say_assumptions
from siamtransfer.checkpoints.options import ReadingOptions
from siamtransfer.checkpoints.read_backbone import load_backbone
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.embedding.config import PredictConfig
from siamtransfer.embedding.embed import embedder_of
from siamtransfer.embedding.embedder import PIXELS, Embedder
from siamtransfer.embedding.predict.head import Head
from siamtransfer.embedding.sources import Part
from siamtransfer.evaluation.labelled_images import form_of
from siamtransfer.features.extract import Transform
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say
from siamtransfer.utils.text import printable

FORM = ("channels", "orientation", "background")
"""Of the form of images, what has to be the same for all; the depth of files is a matter of each set."""


def facts_of(config: PredictConfig, embedder: Embedder, part: Part) -> dict[str, Any]:
    """What a head made with these options belongs to."""
    assert config.checkpoint is not None
    path = Path(config.checkpoint)
    return {
        "checkpoint": str(path.absolute()) if path.exists() else config.checkpoint,
        "branch": config.branch,
        "reading": {field.name: getattr(config, field.name) for field in fields(ReadingOptions)},
        "architecture": embedder.read.architecture.as_dict() if embedder.read else None,
        "weights_digest": embedder.read.digest if embedder.read else None,
        **embedder.settings,
        "form": _form(part),
    }


def embedder_of_head(head: Head, config: PredictConfig, parts: list[Part], runtime: Runtime) -> Embedder:
    """The embedder that gives new images the features that a head takes.

    Raises:
        UserError: the checkpoint is gone, its weights are others, or an option asks for other features.
    """
    facts, file = head.facts, printable(config.head_file or "the head")
    _refuse_other_options(facts, config, file)
    checkpoint = str(facts["checkpoint"] if config.head is None else config.checkpoint)
    if (
        config.head is None
        and checkpoint != PIXELS
        and ":" not in checkpoint
        and not Path(checkpoint).exists()
    ):
        raise UserError(
            f"{file} belongs to {printable(checkpoint)}, which is not there: name the checkpoint first and "
            f"the head with --head {file}"
        )
    stated = {field.name: getattr(config, field.name) for field in fields(ReadingOptions)}
    reading = {name: facts["reading"].get(name) if value is None else value for name, value in stated.items()}
    config = replace(config, checkpoint=checkpoint, layers=facts["layers"])
    network: tuple[Any, Any] = (None, None)
    if checkpoint != PIXELS:
        network = load_backbone(
            checkpoint,
            branch=config.branch or facts["branch"],
            trust_pickle=config.trust_pickle,
            options=ReadingOptions(**reading),
        )
        say_assumptions(network[1])
    digest = network[1].digest if network[1] else None
    if digest != facts["weights_digest"]:
        raise UserError(
            f"{file} was learnt on features of other weights than those of {printable(checkpoint)} (digests "
            f"{str(facts['weights_digest'])[:12]} and {str(digest)[:12]}): give it its own checkpoint, "
            f"{printable(facts['checkpoint'])}, or learn a new head"
        )
    transform = _transform(facts["transform"])
    embedder = embedder_of(
        replace(config, crop=transform.crop, resize=transform.resize), network, parts, runtime
    )
    if (embedder.transform.mean, embedder.transform.std) != (transform.mean, transform.std):
        raise UserError(
            f"{file} was learnt on images that were normalised otherwise than this reading of the checkpoint "
            "says: leave --normalisation out"
        )
    if runtime.precision != facts["precision"]:
        say(
            f"remark: {file} was learnt in {facts['precision']}, and these images are computed in "
            f"{runtime.precision}"
        )
    for part in parts:
        _refuse_other_form(facts["form"], _form(part), file)
    return replace(embedder, transform=transform)


def _refuse_other_options(facts: dict[str, Any], config: PredictConfig, file: str) -> None:
    made = {
        "layers": (config.layers, "output", facts["layers"]),
        "crop": (config.crop, None, facts["transform"]["crop"]),
        "resize": (config.resize, None, facts["transform"]["resize"]),
        "branch": (config.branch, None, facts["branch"]),
    }
    for name, (stated, default, own) in made.items():
        if stated not in (default, own):
            raise UserError(f"{file} was learnt with --{name} {own}, not {stated}: leave --{name} out")


def _refuse_other_form(own: dict[str, Any], other: dict[str, Any], file: str) -> None:
    for key in FORM:
        if own.get(key) != other.get(key):
            raise UserError(
                f"{file} was learnt on images with data.{key} {own.get(key)}, and these have "
                f"{other.get(key)}: say --data.{key} {own.get(key)}"
            )


def _form(part: Part) -> dict[str, Any]:
    form = form_of(part.images)
    return {key: form[key] for key in FORM if key in form}


def _transform(values: dict[str, Any]) -> Transform:
    return Transform(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})
