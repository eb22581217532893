"""The network of a pretraining run: built with its method, filled from a file, described for one."""

from __future__ import annotations

from typing import Any

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.checkpoints.own_format import record_architecture
from siamtransfer.checkpoints.read_backbone import ReadBackbone
from siamtransfer.config import PretrainConfig
from siamtransfer.methods import METHODS, Method


def build_method(config: PretrainConfig, network: Architecture) -> Method:
    """The method around this network, freshly initialised."""
    settings = config.backbone
    backbone = network.build(zero_init_residual=settings.zero_init_residual, drop_path=settings.drop_path)
    return METHODS[config.method.name](backbone, config.options)


def fill_backbone(method: Method, weights: ReadBackbone) -> None:
    """Copies the weights into the backbone, which is of their architecture, and into the target backbone; the
    heads stay new."""
    for backbone in (method.backbone, getattr(method, "target_backbone", None)):
        if backbone is not None:
            backbone.load_state_dict(weights.state, strict=True)


def describe_backbone(method: Method) -> dict[str, Any]:
    """The entries of a checkpoint from which a reader builds the same backbone, and knows which backbone it
    reads by default: `backbone`, and the file's version."""
    recorded, version = record_architecture(Architecture.of(method.backbone))
    more = {"dim": method.backbone.dim, "evaluated": method.evaluated}
    return {"backbone": recorded | more, "version": version}
