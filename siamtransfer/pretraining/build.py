"""The network of a pretraining run: built by the configuration, filled from a file, described for one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from siamtransfer.backbones.architecture import Architecture, build_backbone
from siamtransfer.backbones.names import POSITIONS
from siamtransfer.checkpoints.facts import AmbiguousReading
from siamtransfer.checkpoints.normalisation import Normalisation, describe_normalisation
from siamtransfer.checkpoints.read_backbone import ReadBackbone, read_backbone
from siamtransfer.config import BackboneConfig, PretrainConfig
from siamtransfer.methods import METHODS, Method
from siamtransfer.pretraining.first_convolution import adapt_first_convolution
from siamtransfer.utils.errors import UserError
from siamtransfer.views.view_spec import RGB


def build_method(config: PretrainConfig, channels: int = 3) -> Method:
    """The method with its backbone for images of so many channels, freshly initialised."""
    settings = config.backbone
    backbone = build_backbone(
        settings.name,
        width=settings.width,
        stem=settings.stem,
        zero_init_residual=settings.zero_init_residual,
        drop_path=settings.drop_path,
        in_channels=channels,
    )
    return METHODS[config.method.name](backbone, config.options)


def fill_backbone(
    method: Method, settings: BackboneConfig, images: Normalisation, rgb: Sequence[int] = RGB
) -> str:
    """Loads the checkpoint `settings.weights`, of any known format, into the backbone and the target
    backbone; the heads stay new. Returns a line on what was read. `images` is the run's normalisation, `rgb`
    the channels that are red, green and blue.

    Raises:
        UserError: there is no such file or branch, or it is of another architecture, or of another number of
            channels and nothing says how its first convolution is to be adapted.
    """
    assert settings.weights is not None
    architecture = Architecture.of(method.backbone)
    read = _read_weights(settings, architecture)
    read, adapted = adapt_first_convolution(read, architecture, settings.first_convolution, rgb)
    if read.architecture != architecture:
        raise UserError(f"{settings.weights} {_difference(read.architecture, architecture)}")
    for backbone in (method.backbone, getattr(method, "target_backbone", None)):
        if backbone is not None:
            backbone.load_state_dict(read.state, strict=True)
    remarks = [*([adapted] if adapted else []), *read.reading.assumptions()]
    trained, current = map(describe_normalisation, (read.normalisation, images))
    if trained != current:
        remarks.append(f"it was trained with images normalised by {trained}, and this run's are by {current}")
    return "; ".join([read.summary(), *remarks])


def _difference(read: Architecture, trained: Architecture) -> str:
    """How the network in a file differs from the one that the run is to train, and the cure; the rest of a
    sentence that begins with the file's name."""
    named = ("name", "width", "stem")
    if any(getattr(read, field) != getattr(trained, field) for field in named):
        theirs, ours = (
            ", ".join(str(getattr(network, field)) for field in named if getattr(network, field) is not None)
            for network in (read, trained)
        )
        return (
            f"holds {theirs}, and the run is to train {ours}: set --backbone.name, --backbone.width and "
            "--backbone.stem to the file's"
        )
    differing = {field: value for field, value in read._asdict().items() if value != getattr(trained, field)}
    choices = ", ".join(f"{field} {value}" for field, value in differing.items())
    if set(differing) == {"positions"}:
        return (
            f"holds {read.name} with {choices}, and a run interpolates as timm does: say "
            f"--backbone.reading.positions {POSITIONS[0]}"
        )
    return f"holds {read.name} with {choices}, and a run trains that network as timm or torchvision has it"


def _read_weights(settings: BackboneConfig, architecture: Architecture) -> ReadBackbone:
    """The checkpoint `settings.weights`; where its stem or its heads are ambiguous, those of the run's
    network count as said by the user."""
    assert settings.weights is not None
    options = settings.reading
    try:
        return read_backbone(settings.weights, branch=settings.branch, options=options)
    except AmbiguousReading:
        options = replace(
            options,
            stem=options.stem or architecture.stem,
            heads=options.heads or architecture.attention_heads,
        )
        return read_backbone(settings.weights, branch=settings.branch, options=options)


def describe_backbone(method: Method) -> dict[str, Any]:
    """What a reader of the checkpoint needs to build the same backbone, and which backbone it reads by
    default."""
    backbone = {key: getattr(method.backbone, key) for key in ("name", "width", "stem", "dim")}
    if method.backbone.in_channels != 3:
        backbone["in_channels"] = method.backbone.in_channels
    return backbone | {"evaluated": method.evaluated}
