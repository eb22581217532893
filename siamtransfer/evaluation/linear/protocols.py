"""The linear probes as published, as data: optimizer, learning rate, epochs, pixels.

Every learning rate is the base of lr x batch / 256. All probes train on crops and flips through the frozen
backbone in eval mode, from weights N(0, 0.01²) and bias 0, and their authors report the best epoch on the
test set, of features in float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from siamtransfer.backbones.backbone import Backbone
from siamtransfer.backbones.feature_layers import OUTPUT
from siamtransfer.backbones.resnet import ResNetBackbone
from siamtransfer.evaluation.linear.config import ProbeOptimizer
from siamtransfer.views.view_spec import Interpolation, Numbers


@dataclass(frozen=True)
class PublishedProtocol:
    """One protocol.

    Attributes:
        optimizer, lr, weight_decay: of the update; `lr` for a batch of 256.
        batch_size, epochs: images of an update, and passes over the images.
        milestones: epochs after which the learning rate is a tenth; without any it follows a cosine to zero
            that changes once an epoch.
        test_interpolation: of the evaluation transform, where it is not the training crops' bilinear.
        std: of the normalisation, where it differs from the weights' own.
        vit_lr: `lr` for ViTs, where the authors have another.
        source: where the protocol is described.
    """

    optimizer: ProbeOptimizer
    lr: float
    batch_size: int
    epochs: int
    source: str
    weight_decay: float = 0.0
    milestones: tuple[int, ...] = ()
    test_interpolation: Interpolation = "bilinear"
    std: Numbers | None = None
    vit_lr: float | None = None

    def of(self, backbone: Backbone) -> PublishedProtocol:
        """The protocol as its authors run it on such a backbone."""
        is_vit = backbone.name.removeprefix("timm:").startswith(("vit", "deit"))
        return replace(self, lr=self.vit_lr if is_vit and self.vit_lr else self.lr, vit_lr=None)

    def decay(self, epoch: int) -> float:
        """The fraction of the initial learning rate in `epoch` (from 0)."""
        if self.milestones:
            return 0.1 ** sum(epoch >= milestone for milestone in self.milestones)
        return 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))

    def as_record(self) -> dict[str, Any]:
        """The protocol by the names that records have."""
        names = {"optimizer": "rule", "lr": "rate", "batch_size": "batch"}
        return {names.get(name, name): value for name, value in vars(self).items() if name != "vit_lr"}


SWAV_STD = (0.228, 0.224, 0.225)
PUBLISHED: dict[str, PublishedProtocol] = {
    "simsiam": PublishedProtocol(
        "lars", 0.1, 4096, 90, "facebookresearch/simsiam, README and main_lincls.py --lars"
    ),
    "simsiam-paper": PublishedProtocol("lars", 0.02, 4096, 90, "SimSiam, arXiv 2011.10566, appendix A"),
    "moco": PublishedProtocol(
        "sgd", 30.0, 256, 100, "facebookresearch/moco, main_lincls.py", milestones=(60, 80)
    ),
    "moco-v3": PublishedProtocol(
        "sgd", 0.1, 1024, 90, "facebookresearch/moco-v3, main_lincls.py; ViTs: CONFIG.md, --lr=3", vit_lr=3.0
    ),
    "swav": PublishedProtocol(
        "sgd", 0.3, 256, 100, "facebookresearch/swav, eval_linear.py", weight_decay=1e-6, std=SWAV_STD
    ),
    "barlow-twins": PublishedProtocol(
        "sgd", 0.3, 256, 100, "facebookresearch/barlowtwins, evaluate.py", weight_decay=1e-6
    ),
    "vicreg": PublishedProtocol("sgd", 0.02, 256, 100, "facebookresearch/vicreg, README", weight_decay=1e-6),
    "dino": PublishedProtocol(
        "sgd", 0.001, 1024, 100, "facebookresearch/dino, eval_linear.py", test_interpolation="bicubic"
    ),
}


def published_layers(protocol: str, backbone: Backbone) -> str:
    """The layers that the protocol's authors evaluate: DINO takes the class tokens of the last four blocks of
    its small ViT, and the last one with the mean patch token of larger ones; the others the output."""
    if protocol != "dino" or isinstance(backbone, ResNetBackbone):
        return OUTPUT
    return "last4" if backbone.dim <= 384 else "last1+mean"
