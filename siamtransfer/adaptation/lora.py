"""Low-rank corrections of a trunk's weights (Hu et al., LoRA, arXiv 2106.09685), by the library peft.

A corrected layer computes with W + (alpha / r) B A, where W stays as it was loaded and B [out, r] and
A [r, in] learn; B starts at zero, so that the network starts as it was. A momentum encoder averages A and B,
as it averages all that learns. Readers of a checkpoint shall not need peft: it holds the merged weights under
their usual names, and W, A and B beside them for the run that goes on.

peft takes a second to import, so it is imported when it is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from siamtransfer.backbones.backbone import Backbone
from siamtransfer.backbones.blocks import blocks_of
from siamtransfer.utils.errors import UserError

_ADAPTER = "default"  # peft's name of the only set of corrections


def correct(backbone: Backbone, *, rank: int, alpha: int, targets: Sequence[str]) -> list[str]:
    """Gives every layer within the blocks of `backbone` whose last name is one of `targets` a correction, in
    place, which alone takes gradients from then on. Draws A from torch's generator. Returns their names.

    Raises:
        UserError: peft is not installed, the network has batch norm, whose statistics would go on moving, or
            has no such layers; names those that it has.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise UserError("adapt.lora_rank needs peft: pip install 'siamtransfer[lora]'") from error

    network = _network(backbone)
    if any(isinstance(module, _BatchNorm) for module in network.modules()):
        raise UserError(
            f"adapt.lora_rank: {backbone.name} has batch norm, whose statistics would go on moving beside "
            "weights that stay: take a network with layer norm (a ViT, ConvNeXt), or slow the trunk down by "
            "--adapt.layer-decay"
        )
    chosen = _layers_named(backbone, targets)
    try:
        inject_adapter_in_model(
            LoraConfig(r=rank, lora_alpha=alpha, target_modules=chosen, lora_dropout=0.0), network
        )
    except ValueError as error:
        raise UserError(f"peft cannot correct adapt.lora_targets {','.join(targets)}: {error}") from error
    network.train(backbone.training)
    return chosen


def follow(target: Backbone, online: Backbone, *, rank: int, alpha: int, targets: Sequence[str]) -> None:
    """Gives a momentum encoder the corrections of `online`, with equal values and without gradients."""
    correct(target, rank=rank, alpha=alpha, targets=targets)
    load_corrections(target, corrections(online))
    target.requires_grad_(requires_grad=False)


def corrections(backbone: Backbone) -> dict[str, Tensor]:
    """A and B of every corrected layer, as `blocks.0.attn.qkv.A`."""
    return {
        f"{name}.{part}": weight.detach()
        for name, layer in _corrected(backbone)
        for part, weight in _parts(layer)
    }


def original_weights(backbone: Backbone) -> dict[str, Tensor]:
    """W of every corrected layer, by the layer's name."""
    return {name: layer.base_layer.weight.detach() for name, layer in _corrected(backbone)}


@torch.no_grad()
def load_corrections(
    backbone: Backbone, saved: Mapping[str, Tensor], originals: Mapping[str, Tensor] | None = None
) -> None:
    """Sets A and B of every corrected layer, and its W where `originals` are given.

    Raises:
        UserError: a layer lacks a tensor.
    """
    for name, layer in _corrected(backbone):
        try:
            for part, weight in _parts(layer):
                weight.copy_(saved[f"{name}.{part}"])
            if originals is not None:
                layer.base_layer.weight.copy_(originals[name])
        except KeyError as missing:
            raise UserError(
                f"the run to resume has no low-rank correction {missing.args[0]!r}, so it cannot go on"
            ) from missing


def merged_state(backbone: Backbone) -> dict[str, Tensor]:
    """`backbone.state_dict()` with W + (alpha / r) B A in place of W, A and B, under the usual names."""
    state = dict(backbone.state_dict())
    layers = dict(_corrected(backbone))
    merged: dict[str, Tensor] = {}
    for key, value in state.items():
        layer, _, rest = key.rpartition(".base_layer.")
        if layer in layers and rest == "weight":
            merged[f"{layer}.{rest}"] = value + layers[layer].get_delta_weight(_ADAPTER).detach()
        elif layer in layers:
            merged[f"{layer}.{rest}"] = value
        elif not any(f".{part}." in key for part in ("lora_A", "lora_B")):
            merged[key] = value
    return merged


def _network(backbone: Backbone) -> nn.Module:
    """The module whose names the checkpoint has."""
    model = getattr(backbone, "model", backbone)
    assert isinstance(model, nn.Module)
    return model


def _corrected(backbone: Backbone) -> Iterator[tuple[str, Any]]:
    from peft.tuners.lora import LoraLayer

    for name, module in _network(backbone).named_modules():
        if isinstance(module, LoraLayer):
            yield name, module


def _parts(layer: Any) -> tuple[tuple[str, Tensor], tuple[str, Tensor]]:
    return ("A", layer.lora_A[_ADAPTER].weight), ("B", layer.lora_B[_ADAPTER].weight)


def _layers_named(backbone: Backbone, targets: Sequence[str]) -> list[str]:
    """The layers within blocks whose last name is one of `targets`: linear ones, and convolutions without
    groups, which are all that can be merged."""
    network = _network(backbone)
    names = {module: name for name, module in network.named_modules()}
    layers = [
        names[module]
        for block in blocks_of(backbone)
        for module in block.modules()
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)
    ]
    known = dict.fromkeys(layer.rpartition(".")[2] for layer in layers)
    missing = [target for target in targets if target not in known]
    if missing:
        there = f"those of its blocks are {', '.join(known)}" if known else "its blocks are not known"
        raise UserError(
            f"adapt.lora_targets: {backbone.name} has no layer {', '.join(missing)} in its blocks that can "
            f"be corrected; {there}"
        )
    return [layer for layer in layers if layer.rpartition(".")[2] in targets]
