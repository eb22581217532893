"""The readings that fit the tensors of a file: the reading in use, and those that differ from it.

They differ in what no tensor shows: the normalisation of images, the order of channels, the place of the
stride, the padding and pooling of the stem, the dilation of the last stages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.backbones.names import OUTPUT_STRIDES, RESNETS, STEMS
from siamtransfer.checkpoints.normalisation import NAMES, Normalisation, describe_normalisation
from siamtransfer.checkpoints.read_backbone import ReadBackbone

Kind = Literal["normalisation", "channels", "stride_in_1x1", "stem", "output_stride"]
KINDS: tuple[Kind, ...] = ("normalisation", "channels", "stride_in_1x1", "stem", "output_stride")

_LEVEL = 1 / 255
NORMALISATIONS = {
    "imagenet": NAMES["imagenet"],
    "half": NAMES["half"],
    "none": NAMES["none"],
    "cifar10": NAMES["cifar10"],
    "caffe": Normalisation(NAMES["imagenet"].mean, (_LEVEL, _LEVEL, _LEVEL)),
    "0 to 255": Normalisation((0.0, 0.0, 0.0), (_LEVEL, _LEVEL, _LEVEL)),
}
"""The normalisations that are tried. "caffe" subtracts ImageNet's mean from values of 0 to 255."""


@dataclass(frozen=True)
class Candidate:
    """One reading of a file.

    Attributes:
        architecture: with the stride, stem and dilation of this reading.
        normalisation: of RGB in [0, 1].
        reversed_channels: whether the first convolution takes the channels in the opposite order of the
            reading in use.
        changes: the values that differ from the reading in use, by kind; empty for that reading itself.
    """

    architecture: Architecture
    normalisation: Normalisation
    reversed_channels: bool = False
    changes: dict[Kind, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The changes in words, or "as read"."""
        words = [f"{kind.replace('_', ' ')} {value}" for kind, value in self.changes.items()]
        return ", ".join(words) or "as read"

    @property
    def flags(self) -> str:
        """The options by which a program reads the file so."""
        return " ".join(self._flag(kind, value) for kind, value in self.changes.items())

    def _flag(self, kind: Kind, value: str) -> str:
        if kind == "stride_in_1x1":
            return "--stride-in-1x1" if value == "yes" else "--no-stride-in-1x1"
        if kind == "normalisation":
            value = describe_normalisation(self.normalisation)
        return f"--{kind.replace('_', '-')} {value}"


def in_use(read: ReadBackbone) -> Candidate:
    """The reading under which the file was read."""
    return Candidate(read.architecture, read.normalisation)


def candidates(
    read: ReadBackbone, start: Candidate | None = None, kinds: Sequence[Kind] = KINDS
) -> list[Candidate]:
    """All readings that fit the tensors and differ from `start` (the reading in use) in one of `kinds`."""
    start = start or in_use(read)
    results = []
    for kind in kinds:
        others = {name: value for name, value in start.changes.items() if name != kind}
        for value, candidate in _variants(kind, start, read):
            is_back = _value(kind, candidate) == _value(kind, in_use(read))
            results.append(replace(candidate, changes=others if is_back else {**others, kind: value}))
    return results


def _value(kind: Kind, candidate: Candidate) -> Any:
    if kind == "normalisation":
        return candidate.normalisation
    if kind == "channels":
        return candidate.reversed_channels
    return getattr(candidate.architecture, kind)


def _variants(kind: Kind, start: Candidate, read: ReadBackbone) -> list[tuple[str, Candidate]]:
    """The values of one kind other than that of `start`, each with its reading."""
    if kind == "normalisation":
        known = {**NORMALISATIONS, "as read": read.normalisation}
        return [
            (name, replace(start, normalisation=values))
            for name, values in known.items()
            if values != start.normalisation
        ]
    if kind == "channels":
        as_read = read.reading.channels.value
        order = as_read if start.reversed_channels else {"rgb": "bgr", "bgr": "rgb"}[as_read]
        return [(order, replace(start, reversed_channels=not start.reversed_channels))]
    names = {True: "yes", False: "no"}
    return [
        (names[value] if isinstance(value, bool) else str(value), replace(start, architecture=variant))
        for value in _values(kind, start.architecture)
        if (variant := start.architecture._replace(**{kind: value})) != start.architecture
    ]


def _values(kind: Kind, architecture: Architecture) -> list[Any]:
    """The values of one kind that an architecture with these tensors can have; none for timm's models."""
    if architecture.stem is None:
        return []
    if kind == "stride_in_1x1":
        return [False, True] if RESNETS[architecture.name].bottleneck else []
    if kind == "stem":
        kernel = STEMS[architecture.stem].kernel
        return [stem for stem, spec in STEMS.items() if spec.kernel == kernel]
    return list(OUTPUT_STRIDES)
