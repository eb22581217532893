"""The network of a pretraining run: built with its method, filled from a file, described for one."""

from __future__ import annotations

from typing import Any

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.checkpoints.own_format import record_architecture
from siamtransfer.checkpoints.read_backbone import ReadBackbone
from siamtransfer.config import PretrainConfig
from siamtransfer.methods import METHODS, Method
from siamtransfer.views.pairs import column_recipes
from siamtransfer.views.view_spec import Recipe


def build_method(config: PretrainConfig, network: Architecture, second_channels: int | None = None) -> Method:
    """The method around this network, freshly initialised. A second trunk is the same network with weights of
    its own, for `second_channels` where those of the second column are others."""
    settings = config.backbone
    how: dict[str, Any] = {
        "zero_init_residual": settings.zero_init_residual,
        "drop_path": settings.drop_path,
    }
    method = METHODS[config.method.name](network.build(**how), config.options)
    if config.options.trunks == 2:
        channels = second_channels or network.in_channels
        method.add_trunk(network._replace(in_channels=channels).build(**how))
    return method


def fill_backbone(method: Method, weights: ReadBackbone) -> None:
    """Copies the weights into the backbone, which is of their architecture, into the target backbone and that
    of a second column; the heads stay new."""
    for name in ("backbone", "target_backbone", "second_backbone"):
        backbone = getattr(method, name, None)
        if backbone is not None:
            backbone.load_state_dict(weights.state, strict=True)


def describe_backbone(method: Method) -> dict[str, Any]:
    """The entries of a checkpoint from which a reader builds the same backbone, and knows which backbone it
    reads by default: `backbone`, and the file's version."""
    recorded, version = record_architecture(Architecture.of(method.backbone))
    more = {"dim": method.backbone.dim, "evaluated": method.evaluated}
    return {"backbone": recorded | more, "version": version}


def describe_second(method: Method, recipe: Recipe) -> dict[str, Any]:
    """The entry of a checkpoint that says the same of the second column's backbone, and how its images are
    normalised; nothing where there is none."""
    second = getattr(method, "second_backbone", None)
    if second is None:
        return {}
    own = column_recipes(recipe, 2)[1]
    recorded, _ = record_architecture(Architecture.of(second))
    normalisation = {"mean": list(own.mean), "std": list(own.std)}
    return {"second": {"backbone": recorded | {"dim": second.dim}, "normalisation": normalisation}}
