"""How the tensors of a file are to be read: what the tensors themselves do not say, and how each is known.

Names and shapes of tensors leave open how images were normalised, in which order the channels came, where a
bottleneck block has its stride, how a stem pads and pools, whether the last stages are dilated, and how many
heads an attention has. Each of these is a `Fact` with its source. A fact of no source is an assumption.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Generic, Literal, TypeVar

from siamtransfer.checkpoints.normalisation import IMAGENET, Normalisation, describe_normalisation

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
    """

    normalisation: Fact[Normalisation]
    channels: Fact[Channels]
    stride_in_1x1: Fact[bool] | None = None
    stem: Fact[str] | None = None
    output_stride: Fact[int] | None = None
    heads: Fact[int] | None = None

    @property
    def facts(self) -> dict[str, Fact[Any]]:
        """The facts that apply to this network, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: fact for name, fact in values.items() if fact is not None}

    def assumptions(self) -> list[str]:
        """What was assumed, in plain sentences that name the flag that says otherwise; empty where all is
        known."""
        parts = [_describe(name, fact.value) for name, fact in self.facts.items() if fact.assumed]
        if not parts:
            return []
        return [f"nothing says how this network is to be read; assumed: {'; '.join(parts)}"]

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """For records: {name: {"value": ..., "source": ...}}."""
        return {
            name: {
                "value": {"mean": list(fact.value.mean), "std": list(fact.value.std)}
                if isinstance(fact.value, Normalisation)
                else fact.value,
                "source": fact.source,
            }
            for name, fact in self.facts.items()
        }


def _describe(name: str, value: Any) -> str:
    """An assumed value, and in brackets the flag that says otherwise."""
    match name:
        case "normalisation":
            known = "ImageNet's mean and std" if value == IMAGENET else describe_normalisation(value)
            return f"images normalised with {known} (--normalisation)"
        case "channels":
            return f"channels in the order {value.upper()} (--channels)"
        case "stride_in_1x1":
            where = "1x1" if value else "3x3"
            return f"stride in the {where} convolutions (--{'no-' if value else ''}stride-in-1x1)"
        case "stem":
            return f"the stem {value} (--stem)"
        case "output_stride":
            return (
                "no dilation (--output-stride)" if value == 32 else f"output stride {value} (--output-stride)"
            )
        case _:
            return f"{value} attention heads (--heads)"
