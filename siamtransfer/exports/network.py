"""What is exported: a network with its weights, and the images that it wants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from siamtransfer.backbones.backbone import Backbone
from siamtransfer.backbones.feature_maps import fixed_size
from siamtransfer.backbones.names import STEMS
from siamtransfer.checkpoints.normalisation import Normalisation
from siamtransfer.checkpoints.preprocessing import Preprocessing
from siamtransfer.checkpoints.read_backbone import ReadBackbone
from siamtransfer.evaluation.transform import choose_transform
from siamtransfer.utils.errors import UserError

_SMALL = 32


@dataclass(frozen=True, eq=False)
class Network:
    """A backbone that is to be exported.

    Attributes:
        backbone: x[N, C, H, W] normalised to h[N, D]; float32, in eval mode, on the CPU.
        read: which weights they are, and how they are to be read.
        images: how images are prepared for it, as the evaluators do it.
        stated: whether the file or the files beside it state `images`; otherwise they are the evaluators'
            own choice.
    """

    backbone: Backbone
    read: ReadBackbone
    images: Preprocessing
    stated: bool

    @property
    def normalisation(self) -> Normalisation:
        """Mean and std of images in [0, 1], a number for each channel."""
        return self.read.normalisation

    @property
    def channels(self) -> int:
        """C of the images."""
        return self.read.architecture.in_channels

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8[N, C, H, W] as the network takes it: (pixels / 255 - mean) / std in float32."""
        mean, std = (torch.tensor(part).reshape(1, -1, 1, 1) for part in self.normalisation)
        return (pixels.float() / 255 - mean) / std


def network_of(read: ReadBackbone, size: int | None = None) -> Network:
    """The network of a backbone that was read, for images of `size` pixels a side; None leaves the side to
    the network, its authors, its pretraining, or 224.

    Raises:
        UserError: the network takes images of another size only.
    """
    with torch.random.fork_rng(devices=[]):  # `build` draws weights, which are then replaced
        backbone = read.architecture.build()
    backbone.load_state_dict(read.state, strict=True)
    backbone.eval()
    only = _only_side(backbone)
    if only and size not in (None, only):
        raise UserError(f"{read.name} takes images of {only} x {only} pixels only: leave --size out")
    stated = read.reading.preprocessing
    crop = size or only
    if crop is None and stated is None and "config" not in read.meta:
        crop = _usual_side(backbone)
    transform = choose_transform(read, None, crop=crop, resize=None)
    resize = transform.resize or transform.crop
    if read.stem is not None and STEMS[read.stem].kernel == 3 and stated is None:
        resize = transform.crop  # images that small are not cut
    images = Preprocessing(transform.crop, resize, transform.interpolation)
    network = Network(backbone, read, images, stated is not None)
    reason = refusal_of_size(network, images.size)
    if reason is not None:
        raise UserError(
            f"{read.name} takes no images of {images.size} x {images.size} pixels ({reason}): "
            "say another --size"
        )
    return network


def refusal_of_size(network: Network, side: int) -> str | None:
    """What the backbone's code says against images of `side` x `side` pixels; None where it takes them."""
    try:
        with torch.inference_mode():
            network.backbone(torch.zeros(1, network.channels, side, side))
    except Exception as error:  # assertions and shape errors of each network's own code
        return first_line(error)
    return None


def first_line(error: Exception) -> str:
    """What an error of a library says, in a line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:160] if lines else 'without a reason'}"


def _only_side(backbone: Backbone) -> int | None:
    """The side of the only images that a network takes; None where it takes others, too.

    Raises:
        UserError: they are no squares.
    """
    only = fixed_size(backbone)
    if only is None:
        return None
    if only[0] != only[1]:
        raise UserError(
            f"{backbone.name} takes images of {only[0]} x {only[1]} pixels, and squares are exported"
        )
    return only[0]


def _usual_side(backbone: Backbone) -> int:
    """The side of the images for which the library made the network; 32 for a ResNet with a small stem."""
    if backbone.stem is not None:
        return _SMALL if STEMS[backbone.stem].kernel == 3 else 224
    model: Any = getattr(backbone, "model", None)
    size = getattr(getattr(model, "patch_embed", None), "img_size", None)
    if size is None:
        size = getattr(model, "pretrained_cfg", {}).get("input_size", (3, 224, 224))[1:]
    return int(size[0])
