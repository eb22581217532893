"""The network of a pretraining run: built by the configuration, filled from a file, described for one."""

from __future__ import annotations

from typing import Any

from siamtransfer.backbones.architecture import Architecture, build_backbone
from siamtransfer.checkpoints.read_backbone import read_backbone
from siamtransfer.config import BackboneConfig, PretrainConfig
from siamtransfer.methods import METHODS, Method
from siamtransfer.utils.errors import UserError


def build_method(config: PretrainConfig) -> Method:
    """The method with its backbone, freshly initialised."""
    wanted = config.backbone
    backbone = build_backbone(
        wanted.name,
        width=wanted.width,
        stem=wanted.stem,
        zero_init_residual=wanted.zero_init_residual,
        drop_path=wanted.drop_path,
    )
    return METHODS[config.method.name](backbone, config.options)


def fill_backbone(method: Method, wanted: BackboneConfig) -> str:
    """Gives the backbone, and a target network's, the weights of a checkpoint of any known format; the heads
    stay new. Returns a line on what was read.

    Raises:
        UserError: there is no such file or branch, or it is of another architecture.
    """
    assert wanted.weights is not None
    read = read_backbone(wanted.weights, branch=wanted.branch)
    if read.architecture != Architecture.of(method.backbone):
        raise UserError(
            f"{wanted.weights} holds {read.architecture}, and the run is to train "
            f"{Architecture.of(method.backbone)}: set --backbone.name, --backbone.width and --backbone.stem to "
            "the file's"
        )
    for backbone in (method.backbone, getattr(method, "target_backbone", None)):
        if backbone is not None:
            backbone.load_state_dict(read.state, strict=True)
    return read.summary()


def describe_backbone(method: Method) -> dict[str, Any]:
    """What a reader of the checkpoint needs to build the same backbone, and which of two it should take."""
    known = {key: getattr(method.backbone, key) for key in ("name", "width", "stem", "dim")}
    return known | {"evaluated": method.evaluated}
