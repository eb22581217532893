"""The blocks that a backbone consists of: the units that are recomputed or sharded one by one."""

from __future__ import annotations

from torch import nn

from siamtransfer.backbones.backbone import Backbone

_RESNET_STAGES = ("layer1", "layer2", "layer3", "layer4")
_STAGES = ("stages", "layers")  # of timm's hierarchical networks; each stage may hold `blocks`


def blocks_of(backbone: Backbone) -> list[nn.Module]:
    """The residual blocks of a ResNet, the blocks of a ViT, and those of timm's networks that are built of
    stages; in the order of the forward pass. Empty where the network has another form."""
    network = getattr(backbone, "model", backbone)
    if isinstance(blocks := getattr(network, "blocks", None), nn.Sequential | nn.ModuleList):
        return list(blocks)
    if all(hasattr(network, name) for name in _RESNET_STAGES):
        return [block for name in _RESNET_STAGES for block in network.get_submodule(name).children()]
    for name in _STAGES:
        if isinstance(stages := getattr(network, name, None), nn.Sequential | nn.ModuleList):
            return [block for stage in stages for block in _blocks_of_stage(stage)]
    return []


def _blocks_of_stage(stage: nn.Module) -> list[nn.Module]:
    blocks = getattr(stage, "blocks", None)
    return list(blocks) if isinstance(blocks, nn.Sequential | nn.ModuleList) else [stage]
