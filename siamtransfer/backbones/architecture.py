"""From the name of a backbone to the network; identify.py goes the other way.

`build_backbone` makes torchvision's ResNets and its other classifiers (under torchvision's names of tensors)
and every timm model (under timm's).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple, TypedDict, Unpack

import torch
from torch import Tensor

from siamtransfer.backbones.backbone import Backbone
from siamtransfer.backbones.names import (
    FULL_WIDTH,
    NORMS,
    OUTPUT_STRIDES,
    POSITIONS,
    RESNETS,
    STEMS,
    TIMM,
    TORCHVISION,
    NetworkNorm,
    Stem,
)
from siamtransfer.backbones.resnet import ResNetBackbone, check_resnet, resnet_tensors
from siamtransfer.backbones.sound_convolutions import with_sound_convolutions
from siamtransfer.backbones.timm import VARIANTS, TimmBackbone, head_count, known_outline, timm_name
from siamtransfer.backbones.torchvision import TorchvisionBackbone, torchvision_name
from siamtransfer.utils.errors import UserError

_COUNTER = "num_batches_tracked"
_BOUNDS = (".input_min", ".input_max", ".output_min", ".output_max")
"""Of Gemma 4's ViTs: between what its numbers are cut off; infinite where they are not."""


class Choices(TypedDict, total=False):
    """What a name leaves open. None means the library's own choice.

    Attributes:
        width, stem: of the ResNets.
        stride_in_1x1: stride of bottleneck blocks in the first 1x1 convolution, of the ResNets.
        output_stride: one of OUTPUT_STRIDES, of the ResNets.
        norm: one of NORMS, of the ResNets.
        heads: attention heads, of timm's plain ViTs.
        image_size: the side in pixels for which a ViT has its position embeddings, of timm's networks.
        pool: what a ViT gives: `token`, `avg` …, of timm's networks.
        activation, norm_eps: of timm's ViTs; the activation by timm's name.
        positions: how a timm ViT interpolates its position embeddings, one of POSITIONS.
        in_channels: the channels of an image.
    """

    width: int
    stem: Stem
    stride_in_1x1: bool
    output_stride: int
    norm: NetworkNorm
    heads: int | None
    image_size: int | None
    pool: str | None
    activation: str | None
    norm_eps: float | None
    positions: str | None
    in_channels: int


_OF_RESNETS: Choices = {
    "width": FULL_WIDTH,
    "stem": "imagenet",
    "stride_in_1x1": False,
    "output_stride": OUTPUT_STRIDES[0],
    "norm": NORMS[0],
}
_OF_TIMM: Choices = {
    "heads": None,
    "image_size": None,
    "pool": None,
    "activation": None,
    "norm_eps": None,
    "positions": None,
}
_CHANNELS: Choices = {"in_channels": 3}


def build_backbone(
    name: str, *, zero_init_residual: bool = False, drop_path: float = 0.0, **choices: Unpack[Choices]
) -> Backbone:
    """Constructs a backbone with random weights from the global generator.

    Args:
        name: one of torchvision's ResNets (RESNETS), one of VARIANTS, another classifier of torchvision as
            `torchvision:NAME`, or a timm model, `timm:NAME` or just NAME where torchvision's ResNets have
            none of that name.
        zero_init_residual: sets the last norm of each residual block to zero, also in timm's models where
            they have such; a ViT has none.
        drop_path: the rate of stochastic depth in training, of timm's models only.
        choices: what the name leaves open, see Choices.

    Raises:
        UserError: the name is unknown (the nearest known ones are named), or a choice does not apply.
    """
    if name in RESNETS:
        chosen: Any = _allowed(name, choices, _OF_RESNETS | _CHANNELS)
        if drop_path:
            raise UserError(
                f"backbone.drop_path is {drop_path}, and {name} has no stochastic depth: leave it 0"
            )
        check_resnet(name, **chosen)
        return with_sound_convolutions(ResNetBackbone(name, zero_init_residual=zero_init_residual, **chosen))
    known = known_name(name)
    if known.startswith(TORCHVISION):
        chosen = _allowed(name, choices, _CHANNELS)
        if drop_path:
            raise UserError(f"backbone.drop_path is {drop_path}; it can be chosen for timm's models only")
        return with_sound_convolutions(TorchvisionBackbone(known, **chosen))
    chosen = _allowed(name, choices, _OF_TIMM | _CHANNELS)
    return with_sound_convolutions(TimmBackbone(known, zero_init_residual, drop_path, **chosen))


def known_name(name: str) -> str:
    """The name of a network as its backbone and its `Architecture` have it: timm's with their prefix.

    Raises:
        UserError: the name is unknown; the nearest known ones are named.
    """
    if name in RESNETS or name in VARIANTS:
        return name
    return torchvision_name(name) if name.startswith(TORCHVISION) else timm_name(name)


def _allowed(name: str, choices: Choices, own: Choices) -> dict[str, Any]:
    """The choices that apply to the network, completed by the usual ones.

    Raises:
        UserError: one was made that does not apply.
    """
    usual: dict[str, Any] = {**_OF_RESNETS, **_OF_TIMM, **_CHANNELS}
    made: dict[str, Any] = {**choices}
    for choice, value in made.items():
        if choice in own or value == usual[choice]:
            continue
        if choice == "heads" and name in RESNETS:
            raise UserError(f"{name} has no attention heads: leave heads out")
        words = "width and stem" if choice in ("width", "stem") else "stride_in_1x1 and output_stride"
        if choice == "norm":
            raise UserError(
                f"norm can be chosen for torchvision's ResNets only, not for {name}: leave backbone.norm out"
            )
        if choice in _OF_RESNETS:
            raise UserError(
                f"{words} can be chosen for torchvision's ResNets only, not for {name}: leave them out"
            )
        raise UserError(f"{choice} cannot be chosen for {name}: leave it out")
    return {choice: made.get(choice, value) for choice, value in own.items()}


_SHOWN = ("name", "width", "stem")
"""Fields of an Architecture that `as_dict` has for every network."""


class Architecture(NamedTuple):
    """A backbone without its weights, as `build_backbone` takes it; width and stem are None for timm's.

    `heads` and the fields below it are None where the ViT has timm's, so that equal networks are equal here;
    `with_heads` keeps to that.
    """

    name: str
    width: int | None = None
    stem: Stem | None = None
    stride_in_1x1: bool = False
    output_stride: int = 32
    norm: NetworkNorm = "batch"
    heads: int | None = None
    image_size: int | None = None
    pool: str | None = None
    activation: str | None = None
    norm_eps: float | None = None
    positions: str | None = None
    in_channels: int = 3

    @classmethod
    def of(cls, backbone: Backbone) -> Architecture:
        """The architecture of a network."""
        return cls(*(getattr(backbone, field) for field in cls._fields))

    def with_heads(self, heads: int) -> Architecture:
        """The same ViT with this number of attention heads; MoCo v3's ViT-S gets its own name.

        Raises:
            UserError: it is no plain ViT, or the number does not divide its width.
        """
        if self.attention_heads == heads:
            return self
        base, _ = VARIANTS.get(self.name, (self.name.removeprefix(TIMM), {}))
        for name, (original, options) in VARIANTS.items():
            if original == base and options == {"num_heads": heads}:
                return self._replace(name=name, heads=None)
        plain = self._replace(name=TIMM + base if self.name not in RESNETS else self.name, heads=None)
        build_backbone(plain.name, heads=heads)  # refuses what cannot be
        return plain if head_count(plain.name) == heads else plain._replace(heads=heads)

    @property
    def attention_heads(self) -> int | None:
        """The number of attention heads of a plain ViT, given or timm's; None for other networks."""
        return self.heads if self.heads is not None else head_count(self.name)

    def as_dict(self) -> dict[str, Any]:
        """For records: name, width and stem, and of the others what differs from the usual."""
        usual = Architecture(self.name)
        return {
            field: value
            for field, value in self._asdict().items()
            if field in _SHOWN or value != getattr(usual, field)
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Architecture:
        """The architecture that `as_dict` made this of.

        Raises:
            ValueError: the name, the width or the stem is absent, a field is unknown, or a value is none of
                its field's; says which.
        """
        for field in _SHOWN:
            if field not in content:
                raise ValueError(f"it lacks {field}")
        for field, value in content.items():
            if field not in cls._fields:
                raise ValueError(f"a choice {field!r} is not known to this version of siamtransfer")
            if not _is_possible(field, value):
                raise ValueError(f"{field} is {value!r}")
        return cls(**content)

    @property
    def hidden_choices(self) -> dict[str, Any]:
        """What name, width, stem and channels do not say, where it is not the library's choice:
        {field: value}."""
        named = Architecture(self.name, self.width, self.stem, in_channels=self.in_channels)
        return {field: value for field, value in self._asdict().items() if value != getattr(named, field)}

    def build(self, *, zero_init_residual: bool = False, drop_path: float = 0.0) -> Backbone:
        """The network with random weights from the global generator."""
        choices: Any = {
            choice: value
            for choice, value in self._asdict().items()
            if choice != "name" and value is not None
        }
        return build_backbone(
            self.name, zero_init_residual=zero_init_residual, drop_path=drop_path, **choices
        )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The name and shape of each of its tensors, in the layers' order; draws no random number."""
        return {name: tuple(tensor.shape) for name, tensor in _tensors_of(self).items()}

    def complete(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of `state` in the order of the layers, after a check of every name, shape, type and
        value.

        Batch counters, which only training reads, may be absent altogether (files from before 2018) and are
        then zero.

        Raises:
            ValueError: a tensor is missing, unexpected, of another shape or type, or not finite; names the
                first.
        """
        expected, name = _tensors_of(self), self.name
        unexpected = [key for key in state if key not in expected]
        if unexpected:
            raise ValueError(f"it has a tensor {unexpected[0]!r}, which {name} has not")
        has_counters = any(key.endswith(_COUNTER) for key in state)
        complete: dict[str, Tensor] = {}
        for key, like in expected.items():
            shape = tuple(like.shape)
            if key not in state and key.endswith(_COUNTER) and not has_counters:
                complete[key] = torch.zeros((), dtype=torch.int64)
                continue
            if key not in state:
                raise ValueError(f"it lacks the tensor {key!r} of {name}")
            tensor = state[key].detach()
            if tuple(tensor.shape) != shape:
                raise ValueError(
                    f"its tensor {key!r} has shape {tuple(tensor.shape)} where {name} has {shape}"
                )
            if tensor.is_floating_point() != like.is_floating_point():
                raise ValueError(f"its tensor {key!r} is of the wrong type {tensor.dtype}")
            unbounded = key.endswith(_BOUNDS) and not bool(tensor.isnan().any())
            if not unbounded and not _is_finite(tensor):
                raise ValueError(
                    f"its tensor {key!r} holds NaN or infinity: the training that wrote it had diverged"
                )
            complete[key] = tensor.resolve_neg().contiguous()
        return complete


_MOST = 2**16
"""Of widths, channels, heads and sizes: a network with larger ones could not be built."""


def _is_possible(field: str, value: Any) -> bool:
    """Whether a field of an Architecture can have this value."""
    match field:
        case "name":
            return isinstance(value, str)
        case "stem":
            return value is None or (isinstance(value, str) and value in STEMS)
        case "stride_in_1x1":
            return isinstance(value, bool)
        case "norm":
            return isinstance(value, str) and value in NORMS
        case "output_stride":
            return type(value) is int and value in OUTPUT_STRIDES
        case "pool" | "activation":
            return value is None or isinstance(value, str)
        case "norm_eps":
            return value is None or (isinstance(value, float) and 0 < value < 1)
        case "positions":
            return value is None or (isinstance(value, str) and value in POSITIONS)
    whole = type(value) is int and 1 <= value <= _MOST
    return whole or (value is None and field != "in_channels")


def _is_finite(tensor: Tensor) -> bool:
    """Whether no number is NaN or infinite: an eighth of the time of torch.isfinite, and no memory. The
    extremes of numbers with a NaN among them are NaN."""
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return True
    return all(math.isfinite(extreme) for extreme in torch.aminmax(tensor))


@functools.lru_cache(maxsize=16)
def _tensors_of(architecture: Architecture) -> dict[str, Tensor]:
    """The tensors of a network in the layers' order, without numbers; not to be changed. It is built where
    its tensors are not known otherwise."""
    name, width, stem = architecture[:3]
    if name in RESNETS and width is not None and stem is not None:
        choices: Any = {key: value for key, value in architecture._asdict().items() if key != "name"}
        check_resnet(name, **_allowed(name, choices, _OF_RESNETS | _CHANNELS))
        return resnet_tensors(name, width, stem, architecture.in_channels, architecture.norm)
    known = known_outline(name) if architecture == Architecture(name) else None
    if known is not None:
        return known.tensors
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return dict(architecture.build().state_dict())
