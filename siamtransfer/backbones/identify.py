"""From the names and shapes of tensors to the network that has them.

Torchvision's ResNets of any width and timm's plain ViTs are recognised by their first layers. Every other
network is looked up in the catalogue, where also the networks stand that share their tensors.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.backbones.catalogue import Entry, Shape, load_catalogue
from siamtransfer.backbones.names import RESNETS, TIMM, Stem
from siamtransfer.backbones.timm import is_timm_model, position_count

_VITS = {(192, 12): "tiny", (384, 12): "small", (768, 12): "base", (1024, 24): "large", (1280, 32): "huge"}
"""timm's plain ViTs by the width of a token and the number of blocks."""

_ANTI_ALIASED = re.compile(r"(net|next)(aa|blur)\d|_(aa|blur)_")
"""Names of timm's networks with a low-pass filter before each stride, which has no weights."""


class Identified(NamedTuple):
    """A network that has certain tensors.

    Attributes:
        architecture: the network.
        head: the names of those tensors that are its classifier's.
        others: names of networks with the same tensors that compute something else from them.
        usual: the network is the one that files without a name usually hold: a ResNet, a plain ViT, a
            network without anti-aliasing. Otherwise nothing speaks for it rather than for the others.
    """

    architecture: Architecture
    head: frozenset[str] = frozenset()
    others: tuple[str, ...] = ()
    usual: bool = True

    def decided(self, fits: Callable[[str], bool]) -> Identified:
        """The one of the look-alikes whose name `fits`; the same where none or several do."""
        names = [name for name in (self.architecture.name, *self.others) if fits(name)]
        if not self.others or len(names) != 1:
            return self
        return self._replace(architecture=self.architecture._replace(name=names[0]), others=(), usual=True)

    def with_channels_of(self, shapes: Mapping[str, Shape]) -> Identified:
        """The same for images of as many channels as a convolution of `shapes` takes where that of the
        network takes three. Everything else is compared where the tensors are."""
        if self.architecture.in_channels != 3:
            return self
        for name, own in self.architecture.shapes().items():
            given = shapes.get(name, ())
            if len(own) == len(given) == 4 and own[1] == 3 != given[1]:
                return self._replace(architecture=self.architecture._replace(in_channels=given[1]))
        return self

    def with_pool(self, pool: str | None) -> Identified:
        """The same with another feature than timm's own, where one is given."""
        return self if pool is None else self._replace(architecture=self.architecture._replace(pool=pool))

    def with_norm_eps(self, eps: float | None) -> Identified:
        """The same with another epsilon of its layer norms than timm's own, where one is given and timm has
        the network."""
        if eps is None or not self.architecture.name.startswith(TIMM):
            return self
        return self._replace(architecture=self.architecture._replace(norm_eps=eps))


def identify(shapes: Mapping[str, Shape]) -> Identified:
    """The network that has tensors of these names and shapes, a classifier's among them or not.

    Raises:
        ValueError: no backbone that `build_backbone` makes has these; says what differs.
    """
    entry, channels = load_catalogue().find(shapes), 3
    if entry is None:
        channels = _channels(shapes) or 3
        entry = load_catalogue().find(_with_channels(shapes, 3)) if channels != 3 else None
    pool = None
    if entry is None and "norm.weight" in shapes:  # timm's BEiTs have theirs after the mean of the patches
        renamed = {re.sub(r"^norm\.", "fc_norm.", name): shape for name, shape in shapes.items()}
        entry = load_catalogue().find(renamed)
        pool = "token" if entry is not None else None
    try:
        usual = architecture_of(shapes)
    except ValueError:
        if entry is None:
            raise
        usual = None
    if usual is not None and (entry is None or _bare(usual.name) in map(_bare, entry.names)):
        return Identified(usual, entry.head, _others(entry, usual.name)) if entry else Identified(usual)
    assert entry is not None
    plain = [group[0] for group in entry.groups if not _ANTI_ALIASED.search(group[0])]
    name = plain[0] if plain else entry.name
    architecture = Architecture(name, in_channels=channels, pool=pool)
    if not entry.exact:
        architecture = architecture._replace(image_size=_image_size(name, shapes["pos_embed"]))
    return Identified(architecture, entry.head, _others(entry, name), usual=len(plain) == 1)


def _bare(name: str) -> str:
    return name.removeprefix(TIMM)


def _others(entry: Entry, name: str) -> tuple[str, ...]:
    """One network of every group that computes something else than the network of that name."""
    return tuple(group[0] for group in entry.groups if _bare(name) not in map(_bare, group))


def _first_convolution(shapes: Mapping[str, Shape]) -> str | None:
    """The name of its weights. Position embeddings of four axes (VOLO's) are none."""
    kernels = (name for name, shape in shapes.items() if len(shape) == 4 and shape[-1] > 1)
    return next((name for name in kernels if name.endswith("weight")), None)


def _channels(shapes: Mapping[str, Shape]) -> int | None:
    """The channels that the first convolution takes; None where there is none."""
    first = _first_convolution(shapes)
    return None if first is None else shapes[first][1]


def _with_channels(shapes: Mapping[str, Shape], channels: int) -> dict[str, Shape]:
    """The shapes of the same network for images of so many channels."""
    first = _first_convolution(shapes)
    return {
        name: (shape[0], channels, *shape[2:]) if name == first else shape for name, shape in shapes.items()
    }


def _image_size(name: str, shape: Shape) -> int:
    """The side of the images for which timm's network of that name has position embeddings of that shape.

    Raises:
        ValueError: they are those of no square.
    """
    usual = position_count(name)
    patches = shape[1] - usual.others
    side = math.isqrt(max(patches, 0))
    if len(shape) != 3 or side * side != patches:
        raise ValueError(
            f"its tensor 'pos_embed' has shape {shape}, "
            f"and {patches} positions are those of no square of patches"
        )
    return side * usual.patch


def architecture_of(shapes: Mapping[str, Shape]) -> Architecture:
    """The ResNet (torchvision's names) or plain ViT (timm's names) that has tensors of these names and
    shapes, judged by its first layers.

    Raises:
        ValueError: no backbone that `build_backbone` makes has these; says what differs.
    """
    if any(name.startswith(("patch_embed.", "blocks.")) for name in shapes):
        return _vit_of(shapes)
    if "conv1.0.weight" in shapes:
        raise ValueError("its stem has several convolutions (as timm's resnet50d has), torchvision's has one")
    conv1, conv2 = shapes.get("conv1.weight", ()), shapes.get("layer1.0.conv2.weight", ())
    if len(conv1) != 4 or len(conv2) != 4:
        raise ValueError("it lacks the first layers of a ResNet, conv1.weight and layer1.0.conv2.weight")
    width, channels, kernel, _ = conv1
    stems: dict[int, Stem] = {7: "imagenet", 3: "small"}
    if kernel not in stems:
        raise ValueError(
            f"its first convolution has shape {conv1}, not {width} x {channels} x 7 x 7 or "
            f"{width} x {channels} x 3 x 3"
        )
    block = "bottleneck" if "layer1.0.conv3.weight" in shapes else "basic"
    blocks = tuple(
        len({key.split(".")[1] for key in shapes if key.startswith(f"layer{s}.")}) for s in (1, 2, 3, 4)
    )
    groups = conv2[0] // conv2[1]
    for name, spec in RESNETS.items():
        same = (spec.block, spec.blocks, spec.groups) == (block, blocks, groups)
        if same and spec.inner_width(width) == conv2[0]:
            return Architecture(name, width, stems[kernel], in_channels=channels)
    kind = "Bottleneck" if block == "bottleneck" else "BasicBlock"
    raise ValueError(
        f"{blocks} {kind} blocks with {groups} groups, {width} and {conv2[0]} channels are none of "
        f"{', '.join(RESNETS)}"
    )


def _vit_of(shapes: Mapping[str, Shape]) -> Architecture:
    if "patch_embed.proj.0.weight" in shapes:
        raise ValueError("its ViT has a convolutional stem, which no model of timm has")
    patches, positions = shapes.get("patch_embed.proj.weight", ()), shapes.get("pos_embed", ())
    if len(patches) == 4 and "pos_embed" not in shapes:
        blocks = len({name.split(".")[1] for name in shapes if name.startswith("blocks.")})
        tokens = shapes["reg_token"][1] if len(shapes.get("reg_token", ())) == 3 else 0
        raise ValueError(
            f"a ViT of {blocks} blocks of width {patches[0]} without learned position embeddings and with "
            f"{tokens} register tokens is none of timm's"
        )
    if len(patches) != 4 or len(positions) != 3:
        raise ValueError("it lacks the first layers of a ViT, patch_embed.proj.weight and pos_embed")
    dim, channels, patch, _ = patches
    blocks = len({name.split(".")[1] for name in shapes if name.startswith("blocks.")})
    side = patch * math.isqrt(max(positions[1] - 1, 0))
    name = f"vit_{_VITS.get((dim, blocks), 'unknown')}_patch{patch}_{side}"
    if not is_timm_model(name):
        raise ValueError(
            f"a ViT of {blocks} blocks of width {dim} with patches of {patch} pixels for images of {side} is "
            "none of timm's plain ones"
        )
    pool = "avg" if "fc_norm.weight" in shapes else None  # the norm after the mean of the patches
    return Architecture(TIMM + name, in_channels=channels, pool=pool)
