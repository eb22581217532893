"""The methods by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from torch import nn

from siamtransfer.methods.barlow_twins import BarlowTwins, BarlowTwinsConfig
from siamtransfer.methods.base import Method, Options
from siamtransfer.methods.byol import BYOL, BYOLConfig
from siamtransfer.methods.dino import DINO, DINOConfig
from siamtransfer.methods.directpred import DirectPred, DirectPredConfig
from siamtransfer.methods.moco import MoCo, MoCoConfig
from siamtransfer.methods.moco_v3 import MoCoV3, MoCoV3Config
from siamtransfer.methods.simclr import SimCLR, SimCLRConfig
from siamtransfer.methods.simsiam import SimSiam, SimSiamConfig
from siamtransfer.methods.swav import SwAV, SwAVConfig
from siamtransfer.methods.unigrad import UniGrad, UniGradConfig
from siamtransfer.methods.vicreg import VICReg, VICRegConfig

MethodName = Literal[
    "simsiam",
    "simclr",
    "moco",
    "moco-v3",
    "byol",
    "swav",
    "dino",
    "barlow-twins",
    "vicreg",
    "directpred",
    "unigrad",
]


class Entry(NamedTuple):
    """A method: what holds its options, what builds it from a backbone and these, and whether it takes more
    than two views of an image."""

    options: type[Options]
    build: Callable[[nn.Module, Any], Method]
    multi_crop: bool = False


METHODS: dict[str, Entry] = {
    "simsiam": Entry(SimSiamConfig, SimSiam, multi_crop=True),
    "simclr": Entry(SimCLRConfig, SimCLR),
    "moco": Entry(MoCoConfig, MoCo),
    "moco-v3": Entry(MoCoV3Config, MoCoV3),
    "byol": Entry(BYOLConfig, BYOL),
    "swav": Entry(SwAVConfig, SwAV, multi_crop=True),
    "dino": Entry(DINOConfig, DINO, multi_crop=True),
    "barlow-twins": Entry(BarlowTwinsConfig, BarlowTwins),
    "vicreg": Entry(VICRegConfig, VICReg),
    "directpred": Entry(DirectPredConfig, DirectPred),
    "unigrad": Entry(UniGradConfig, UniGrad),
}


def section_of(name: str) -> str:
    """The section of the configuration that holds a method's options: moco_v3 for moco-v3."""
    return name.replace("-", "_")
