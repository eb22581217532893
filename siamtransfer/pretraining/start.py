"""The network that a run begins with: that of the configuration, of the file `backbone.weights`, or of the
checkpoint that is resumed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from siamtransfer.backbones.architecture import Architecture, known_name
from siamtransfer.backbones.names import FULL_WIDTH, RESNETS
from siamtransfer.checkpoints.facts import AmbiguousReading
from siamtransfer.checkpoints.normalisation import Normalisation, describe_normalisation
from siamtransfer.checkpoints.options import ReadingOptions
from siamtransfer.checkpoints.own_format import recorded_architecture
from siamtransfer.checkpoints.read_backbone import ReadBackbone, read_backbone
from siamtransfer.config import BackboneConfig
from siamtransfer.pretraining.first_convolution import adapt_first_convolution
from siamtransfer.utils.errors import UserError
from siamtransfer.views.view_spec import Recipe


class Start(NamedTuple):
    """What a run begins with.

    Attributes:
        architecture: the network, for the channels of the images.
        weights: what was read from `backbone.weights`; None where they are random or come from the
            checkpoint that is resumed.
        account: what was read and how it was taken over, as a line of text; empty without weights.
    """

    architecture: Architecture
    weights: ReadBackbone | None = None
    account: str = ""


def find_start(settings: BackboneConfig, recipe: Recipe, saved: dict[str, Any] | None = None) -> Start:
    """The start of a run with views by `recipe`, or of one that goes on from the checkpoint `saved`. Draws no
    random number.

    A network with weights is that of the file with all its choices: the configuration may leave out its name,
    width and stem, and must not contradict them.

    Raises:
        UserError: there is no such file or branch, the configuration names another network, or it is for
            another number of channels and nothing says how its first convolution is to be adapted.
    """
    if saved is not None:
        return Start(recorded_architecture(saved["backbone"]))
    if settings.weights is None:
        return Start(configured_network(settings, recipe.channels))
    read = _read_weights(settings)
    require_network(settings, read.architecture, settings.weights)
    wanted = read.architecture._replace(in_channels=recipe.channels)
    read, adapted = adapt_first_convolution(read, wanted, settings.first_convolution, recipe.rgb)
    remarks = [adapted] if adapted else []
    choices = read.architecture.hidden_choices
    if choices:
        kept = ", ".join(f"{name} {value}" for name, value in choices.items())
        remarks.append(f"the network keeps what it has beyond its name: {kept}")
    remarks += read.reading.assumptions()
    images = Normalisation(tuple(recipe.mean), tuple(recipe.std))
    trained, current = map(describe_normalisation, (read.normalisation, images))
    if trained != current:
        remarks.append(f"it was trained with images normalised by {trained}, and this run's are by {current}")
    return Start(read.architecture, read, "; ".join([read.summary(), *remarks]))


def configured_network(settings: BackboneConfig, channels: int = 3) -> Architecture:
    """The network that the configuration names, for images of so many channels. Building it refuses a width
    or a stem that it cannot have.

    Raises:
        UserError: its name is unknown.
    """
    usual = settings.completed()
    assert usual.name is not None, "a run from weights takes the network of its file"
    norm = usual.norm or "batch"
    return Architecture(known_name(usual.name), usual.width, usual.stem, norm=norm, in_channels=channels)


def require_network(settings: BackboneConfig, network: Architecture, holder: str) -> None:
    """Raises UserError where the configuration names another network than the one that `holder` holds. What
    it leaves out is that one's."""
    name = None if settings.name is None else known_name(settings.name)
    stated = {"name": name, "width": settings.width, "stem": settings.stem, "norm": settings.norm}
    usual = {"width": FULL_WIDTH, "stem": "imagenet", "norm": "batch"} if network.stem is None else {}
    if all(value in (None, getattr(network, key), usual.get(key)) for key, value in stated.items()):
        return
    if settings.norm in (None, network.norm):
        del stated["norm"]  # of few networks anybody asks
    theirs, ours = (
        ", ".join(f"{key} {value}" for key, value in choices.items() if value is not None)
        for choices in ({key: getattr(network, key) for key in stated}, stated)
    )
    *first, last = (f"--backbone.{key}" for key in stated)
    raise UserError(
        f"{holder} holds {theirs}, and the run is to train {ours}: set {', '.join(first)} and {last} to the "
        "file's, or to null, which takes whatever the file holds"
    )


def _read_weights(settings: BackboneConfig) -> ReadBackbone:
    """The checkpoint `settings.weights`. Where it is ambiguous, what the configuration says of the network
    decides."""
    assert settings.weights is not None
    ambiguous: AmbiguousReading | None = None
    for options in _readings(settings):
        try:
            return read_backbone(settings.weights, branch=settings.branch, options=options)
        except AmbiguousReading as error:
            ambiguous = ambiguous or error
    raise UserError(
        f"{ambiguous} (in a run these flags begin with --backbone.reading.), or name the network by "
        "--backbone.name"
    ) from ambiguous


def _readings(settings: BackboneConfig) -> Iterator[ReadingOptions]:
    """What the user says of the file: by the options of reading alone, then also by the stem and the heads of
    the configured network, then by its name."""
    options = settings.reading
    yield options
    name = None if settings.name is None else known_name(settings.name)
    heads = None if name is None else Architecture(name).attention_heads
    options = replace(options, stem=options.stem or settings.stem, heads=options.heads or heads)
    if options != settings.reading:
        yield options
    if name is not None and name not in RESNETS and options.architecture is None:
        yield replace(options, architecture=name)
