"""The linear probes as published, as data: what trains, how fast, how long, on which pixels.

Every rate is the base of lr x batch / 256. All of them train on crops and flips through the frozen backbone
in eval mode, from weights N(0, 0.01²) and bias 0, and their authors report the best epoch on the test set.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from siamtransfer.backbones.architecture import Backbone, ResNetBackbone
from siamtransfer.backbones.feature_layers import OUTPUT
from siamtransfer.evaluation.linear.classifier_bank import Rule
from siamtransfer.views.recipes import Interpolation, Triple


@dataclass(frozen=True)
class Published:
    """One protocol.

    Attributes:
        rule, rate, weight_decay: of the update; `rate` for a batch of 256.
        batch, epochs: how many images an update, and passes over the images.
        milestones: epochs after which the rate is a tenth; none is one stair of a cosine to zero an epoch.
        test_interpolation: of the evaluation transform, where it is not the training crops' bilinear.
        std: of the normalisation, where it differs from the weights' own.
        source: where the recipe is read from.
    """

    rule: Rule
    rate: float
    batch: int
    epochs: int
    source: str
    weight_decay: float = 0.0
    milestones: tuple[int, ...] = ()
    test_interpolation: Interpolation = "bilinear"
    std: Triple | None = None

    def decay(self, epoch: int) -> float:
        """The share of the initial rate in `epoch` (from 0)."""
        if self.milestones:
            return 0.1 ** sum(epoch >= milestone for milestone in self.milestones)
        return 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))


SWAV_STD = (0.228, 0.224, 0.225)
PUBLISHED: dict[str, Published] = {
    "simsiam": Published("lars", 0.1, 4096, 90, "facebookresearch/simsiam, README and main_lincls.py --lars"),
    "simsiam-paper": Published("lars", 0.02, 4096, 90, "SimSiam, arXiv 2011.10566, appendix A"),
    "moco": Published("sgd", 30.0, 256, 100, "facebookresearch/moco, main_lincls.py", milestones=(60, 80)),
    "moco-v3": Published("sgd", 0.1, 1024, 90, "facebookresearch/moco-v3, main_lincls.py (ResNet-50)"),
    "swav": Published(
        "sgd", 0.3, 256, 100, "facebookresearch/swav, eval_linear.py", weight_decay=1e-6, std=SWAV_STD
    ),
    "barlow-twins": Published(
        "sgd", 0.3, 256, 100, "facebookresearch/barlowtwins, evaluate.py", weight_decay=1e-6
    ),
    "vicreg": Published("sgd", 0.02, 256, 100, "facebookresearch/vicreg, README", weight_decay=1e-6),
    "dino": Published(
        "sgd", 0.001, 1024, 100, "facebookresearch/dino, eval_linear.py", test_interpolation="bicubic"
    ),
}


def published_layers(protocol: str, backbone: Backbone) -> str:
    """The layers that the protocol's authors evaluate: DINO takes the class tokens of the last four blocks of
    its small ViT, and the last one with the mean patch token of larger ones; the others the output."""
    if protocol != "dino" or isinstance(backbone, ResNetBackbone):
        return OUTPUT
    return "last4" if backbone.dim <= 384 else "last1+mean"
