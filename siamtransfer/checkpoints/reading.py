"""How the tensors of a file are to be read: what the tensors themselves do not say, and how each is known.

Names and shapes of tensors leave open how images were normalised, in which order the channels came, where a
bottleneck block has its stride, how a stem pads and pools, whether the last stages are dilated, how many
heads an attention has, and how its positions are interpolated. Each of these is a `Fact` with its source. A
fact of no source is an assumption.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Generic, Literal, TypeVar

from siamtransfer.backbones.names import STEMS
from siamtransfer.checkpoints.normalisation import CLIP, HALF, IMAGENET, Normalisation, describe_normalisation
from siamtransfer.checkpoints.preprocessing import Preprocessing

T = TypeVar("T")
Channels = Literal["rgb", "bgr"]
ASSUMED = "assumed"
"""The source of a value that nothing states."""


@dataclass(frozen=True)
class Fact(Generic[T]):
    """A value, and in words how it is known: "pixel_mean in the file", "config.json beside the file", "the
    format moco-v3", "--heads"; ASSUMED where nothing states it."""

    value: T
    source: str

    @property
    def assumed(self) -> bool:
        """Whether nothing states the value."""
        return self.source == ASSUMED


@dataclass(frozen=True)
class Reading:
    """What was known or assumed of a file's network; None for what its kind of network does not have.

    Attributes:
        normalisation: mean and std of RGB images in [0, 1].
        channels: the order in which the file's first convolution takes them. The reader reverses "bgr", so
            the tensors that it returns always take RGB.
        stride_in_1x1: whether a bottleneck block has its stride in the first 1x1 convolution (MSRA's and
            Caffe's ResNets) or in the 3x3 (torchvision's).
        stem: the name of a ResNet's first layers.
        output_stride: 32; 16 or 8 for a ResNet whose last stage or two stages are dilated instead of strided.
        heads: number of attention heads of a ViT.
        positions: how a ViT interpolates its position embeddings for images of other sizes, one of POSITIONS.
        preprocessing: how the authors prepare an image, where that is stated.
        look_alikes: names of less common networks with the same tensors, which compute something else.
        notes: what differs from the authors' network, a sentence each.
    """

    normalisation: Fact[Normalisation]
    channels: Fact[Channels]
    stride_in_1x1: Fact[bool] | None = None
    stem: Fact[str] | None = None
    output_stride: Fact[int] | None = None
    heads: Fact[int] | None = None
    positions: Fact[str] | None = None
    preprocessing: Fact[Preprocessing] | None = None
    look_alikes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def facts(self) -> dict[str, Fact[Any]]:
        """The facts that apply to this network, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: fact for name, fact in values.items() if isinstance(fact, Fact)}

    def assumptions(self) -> list[str]:
        """What was assumed, in one sentence that gives with each value the flag that says otherwise, and the
        notes; empty where all is known."""
        parts = [_describe(name, fact.value) for name, fact in self.facts.items() if fact.assumed]
        if self.stem is not None and self.stem.assumed:
            parts.append("no anti-aliasing (if it has: --architecture timm:NAME)")
        elif self.look_alikes:
            names = " or ".join(f"--architecture {name}" for name in self.look_alikes)
            parts.append(f"the plain one of the networks with these tensors (otherwise say {names})")
        if not parts:
            return [*self.notes]
        return [*self.notes, f"assumed, for neither the file nor its format says: {'; '.join(parts)}"]

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """For records: {name: {"value": ..., "source": ...}}."""
        return {
            name: {"value": _as_json(fact.value), "source": fact.source} for name, fact in self.facts.items()
        }


def _as_json(value: Any) -> Any:
    if isinstance(value, Normalisation):
        return {"mean": list(value.mean), "std": list(value.std)}
    return value._asdict() if isinstance(value, Preprocessing) else value


def describe_value(name: str, value: Any) -> str:
    """A value of the fact `name` in words."""
    match name:
        case "normalisation":
            known = {
                IMAGENET: "ImageNet's mean and std",
                HALF: "mean and std of 0.5",
                CLIP: "CLIP's mean and std",
            }
            return f"images normalised with {known.get(value) or describe_normalisation(value)}"
        case "channels":
            return f"channels in the order {value.upper()}"
        case "stride_in_1x1":
            return f"stride in the {'1x1' if value else '3x3'} convolutions"
        case "stem":
            stem = STEMS[value]
            pool = "max-pooling" if stem.pool else "no max-pooling"
            return (
                f"the stem {value} ({stem.kernel}x{stem.kernel}, stride {stem.stride}, padding "
                f"{stem.padding}, {pool})"
            )
        case "output_stride":
            return "no dilation" if value == 32 else f"dilation to an output stride of {value}"
        case "architecture":
            return f"the network {value}"
        case "positions":
            return f"positions of other sizes interpolated {_INTERPOLATIONS[value]}"
        case "preprocessing":
            return str(value)
        case _:
            return f"{value} attention heads"


_INTERPOLATIONS = {
    "antialiased": "with antialiasing, as timm does",
    "bicubic": "without antialiasing",
    "bicubic-offset": "by DINO's factor, (n + 0.1) / N",
}


def flag_of(name: str, value: Any = None) -> str:
    """The flag that states the fact `name`, with the value."""
    flag = f"--{name.replace('_', '-').replace('1x1', '1x1')}"
    if isinstance(value, bool):
        return flag if value else f"--no-{flag[2:]}"
    if value is None:
        return flag
    return f"{flag} {describe_normalisation(value) if isinstance(value, Normalisation) else value}"


def _other_normalisation(value: Normalisation) -> Normalisation:
    """Another common normalisation of images with as many channels."""
    channels = len(value.mean)
    if channels != 3:
        return Normalisation((0.25,) * channels, (0.2,) * channels)
    return IMAGENET if value != IMAGENET else HALF


def _describe(name: str, value: Any) -> str:
    """An assumed value, and in brackets the flag with the other common value."""
    others: dict[str, Any] = {
        "normalisation": _other_normalisation(value) if name == "normalisation" else None,
        "channels": "bgr" if value == "rgb" else "rgb",
        "stride_in_1x1": value is not True,
        "stem": {"small": "small-pad2", "imagenet": "imagenet-nopool"}.get(str(value), "small"),
        "output_stride": 16 if value == 32 else 32,
        "heads": 12 if value == 6 else 6,
        "positions": "bicubic" if value == "antialiased" else "antialiased",
    }
    return f"{describe_value(name, value)} (otherwise say e.g. {flag_of(name, others[name])})"
