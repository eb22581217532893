"""A network of timm in stages (ConvNeXt, Swin, RegNet, EfficientNet ...) as the trunk of a feature pyramid.

Which networks these are is tried: timm's maps have to have strides 4, 8, 16 and 32 for images of any sides
that are multiples of 32, which is what detectors make of an image.
"""

from __future__ import annotations

import functools
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.backbones.library_backbone import LibraryBackbone
from siamtransfer.backbones.names import RESNETS, TIMM, TORCHVISION
from siamtransfer.detection.pyramid_trunk import LEVELS, PyramidTrunk
from siamtransfer.utils.errors import UserError

_TRIED = ((96, 160), (800, 1344))
"""Height and width of images, multiples of 32, at which the maps have to have their strides."""
MapNorm = Literal["LN", ""]
_BATCH_NORM = nn.modules.batchnorm._BatchNorm


class StageFacts(NamedTuple):
    """What was found out about a network in stages.

    Attributes:
        indices: the places of the maps of LEVELS among timm's maps.
        channels: of these maps.
        unused: the parameters of which no map is made (a last norm, a last convolution).
        map_norm: LN where its norms are layer norms and none is a batch norm, else empty. No norm is over the
            last addition of a stage then, so that detectors put a layer norm on each map, as those published
            with Swin (Liu et al. 2021) and ConvNeXt (Liu et al. 2022) do.
    """

    indices: tuple[int, ...]
    channels: tuple[int, ...]
    unused: frozenset[str]
    map_norm: MapNorm


@functools.cache
def stage_facts(architecture: Architecture) -> StageFacts:
    """The facts of a network of timm in stages; found without numbers, and cached.

    Raises:
        UserError: it is no network of timm, or has no maps of these strides; says what it has.
    """
    name = architecture.name
    if name in RESNETS or name.startswith(TORCHVISION):
        raise UserError(
            f"{name} is torchvision's, and the trunk of a feature pyramid is made of networks of timm here; "
            f"name timm's, such as {TIMM}{name if name in RESNETS else 'resnet50'}"
        )
    if architecture.in_channels != 3:
        raise UserError(f"{name} takes images of {architecture.in_channels} channels; detectors have 3")
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        backbone: Any = architecture.build()
        model = backbone.model.eval()
        indices = _indices(name, model)
        for size in _TRIED:
            maps = _tried(name, model, indices, size)
        sum((features.sum() for features in maps), start=torch.zeros(())).backward()
    kinds = [type(module) for module in model.modules()]
    layer_norms = any(issubclass(kind, nn.LayerNorm) for kind in kinds)
    batch_norms = any(issubclass(kind, _BATCH_NORM) for kind in kinds)
    return StageFacts(
        indices,
        tuple(int(features.shape[1]) for features in maps),
        frozenset(name for name, parameter in model.named_parameters() if parameter.grad is None),
        "LN" if layer_norms and not batch_norms else "",
    )


@functools.cache
def map_strides(architecture: Architecture) -> tuple[int, ...]:
    """The strides of all maps that timm states for the network, in their order; none for other libraries'."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return tuple(_strides(getattr(architecture.build(), "model", None)))


def _strides(model: Any) -> list[int]:
    return [int(entry["reduction"]) for entry in getattr(model, "feature_info", [])]


def _indices(name: str, model: Any) -> tuple[int, ...]:
    """The last of timm's maps of each stride of LEVELS."""
    strides = _strides(model)
    if not set(LEVELS.values()) <= set(strides):
        found = ", ".join(map(str, dict.fromkeys(strides))) or "none"
        raise UserError(
            f"{name.removeprefix(TIMM)} has maps of the strides {found}, and a feature pyramid needs 4, 8, "
            "16 and 32"
        )
    last = {stride: index for index, stride in enumerate(strides)}
    return tuple(last[stride] for stride in LEVELS.values())


def _tried(name: str, model: Any, indices: tuple[int, ...], size: tuple[int, int]) -> list[Tensor]:
    """The maps of an image of this size, without numbers."""
    bare, (height, width) = name.removeprefix(TIMM), size
    try:
        maps = intermediates(model, torch.empty(1, 3, height, width), indices)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UserError(
            f"{bare} does not take images of {height}x{width} pixels, and detectors need any multiple of 32 "
            f"({' '.join(str(error).split()) or type(error).__name__})"
        ) from error
    for stride, features in zip(LEVELS.values(), maps, strict=True):
        found = tuple(features.shape[2:])
        if found != (height // stride, width // stride):
            raise UserError(
                f"{bare} makes a map of {found[0]}x{found[1]} from {height}x{width} pixels, where a feature "
                f"pyramid needs {height // stride}x{width // stride}"
            )
    return maps


def intermediates(model: Any, x: Tensor, indices: tuple[int, ...]) -> list[Tensor]:
    """timm's maps [N, C, h, w] of these places, as they leave their stages."""
    maps: list[Tensor] = model.forward_intermediates(
        x, indices=list(indices), stop_early=True, intermediates_only=True, output_fmt="NCHW"
    )
    return maps


class StageMaps(LibraryBackbone):
    """x[N, 3, H, W] -> timm's maps of the strides of LEVELS, as they leave their stages.

    Parameters of which no map is made do not require gradients, and batch norms among them stay in eval mode.

    Raises:
        UserError: see `stage_facts`.
    """

    def __init__(self, architecture: Architecture, drop_path: float = 0.0):
        facts = stage_facts(architecture)
        backbone: Any = architecture.build(drop_path=drop_path)
        super().__init__(backbone.name, backbone.model, backbone.dim)
        self.indices = facts.indices
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name not in facts.unused)
        self._idle = [
            name
            for name, module in self.model.named_modules()
            if isinstance(module, _BATCH_NORM) and f"{name}.weight" in facts.unused
        ]

    def train(self, mode: bool = True) -> StageMaps:
        super().train(mode)
        for name in self._idle:
            self.model.get_submodule(name).eval()
        return self

    def forward(self, x: Tensor) -> Any:
        return intermediates(self.model, x, self.indices)


class StageTrunk(PyramidTrunk):
    """The maps res2 to res5 of a network of timm, with a layer norm on each where the network has such.

    Args:
        architecture: of the network.
        drop_path: rate of stochastic depth in training.
        map_norm: LN for a layer norm on each map, empty for none; None: that of StageFacts.

    Raises:
        UserError: the network has no such maps.
    """

    def __init__(self, architecture: Architecture, drop_path: float = 0.0, map_norm: MapNorm | None = None):
        from timm.layers import LayerNorm2d

        super().__init__()
        facts = stage_facts(architecture)
        self.bottom_up = StageMaps(architecture, drop_path)
        self.channels = dict(zip(LEVELS, facts.channels, strict=True))
        self.strides = dict(LEVELS)
        self.size_divisibility = max(LEVELS.values())
        normed = self.channels if (facts.map_norm if map_norm is None else map_norm) else {}
        self.norms = nn.ModuleDict({name: LayerNorm2d(count) for name, count in normed.items()})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = dict(zip(LEVELS, self.bottom_up(x), strict=True))
        for name, norm in self.norms.items():
            maps[name] = norm(maps[name])
        return maps
