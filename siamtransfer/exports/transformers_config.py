"""Which network of transformers a backbone is, and the configuration that builds it.

What a configuration cannot say shows later: as a tensor without a place, or as other features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from siamtransfer.backbones.names import RESNETS
from siamtransfer.backbones.resnet import ResNetBackbone
from siamtransfer.checkpoints.layouts import hugging_face as layouts
from siamtransfer.exports.network import Network
from siamtransfer.utils.errors import UserError

ONLY = "transformers has ResNet, ViT, DINOv2, ConvNeXt and Swin in this layout"

_CONVNEXT_EPS = 1e-6
"""The epsilon of the norms in transformers' ConvNeXt, which no configuration changes but for the last one."""


@dataclass(frozen=True)
class Family:
    """A network of transformers.

    Attributes:
        what: its name in words.
        config: the configuration, an object of transformers.
        layout: from the tensors of its files to those of timm or torchvision.
        feature: where the output has the feature: the first token of last_hidden_state, or pooler_output.
        arguments: what AutoModel has to be told beside the folder.
        positions: the side in pixels of the only images for which its position embeddings are exact; None
            where it has none.
    """

    what: str
    config: Any
    layout: layouts.Layout
    feature: Literal["token", "pooled"]
    arguments: dict[str, Any] = field(default_factory=dict)
    positions: int | None = None


def family_of(network: Network) -> Family:
    """The network of transformers that has this backbone's layers.

    Raises:
        UserError: there is none here; says what can be written instead.
    """
    from timm.models.convnext import ConvNeXt
    from timm.models.swin_transformer import SwinTransformer
    from timm.models.vision_transformer import VisionTransformer

    if isinstance(network.backbone, ResNetBackbone):
        return _resnet(network.backbone)
    model = getattr(network.backbone, "model", None)
    builders: dict[type, Callable[[Network, Any], Family]] = {
        VisionTransformer: _vit,
        ConvNeXt: _convnext,
        SwinTransformer: _swin,
    }
    for kind, build in builders.items():
        if type(model) is kind:
            return build(network, model)
    raise _refusal(network, f"it is no network of theirs: {ONLY}")


def _refusal(network: Network, reason: str) -> UserError:
    return UserError(
        f"{network.read.name} cannot be written as transformers' own network, for {reason}; --layout timm "
        "writes a folder that AutoModel reads through timm"
    )


def _resnet(backbone: ResNetBackbone) -> Family:
    from transformers import ResNetConfig

    spec, width = RESNETS[backbone.name], backbone.width
    assert width is not None
    reasons = {
        f"the stem {backbone.stem}": backbone.stem != "imagenet",
        f"an output stride of {backbone.output_stride}": backbone.output_stride != 32,
        f"the norm {backbone.norm}": backbone.norm != "batch",
        "groups or wider blocks": (spec.groups, spec.width_per_group) != (1, 64),
    }
    for reason, wrong in reasons.items():
        if wrong:
            raise UserError(
                f"{backbone.name} cannot be written as transformers' ResNet, which has no place for "
                f"{reason}; write it by --to onnx or torch-export"
            )
    config = ResNetConfig(
        num_channels=backbone.in_channels,
        embedding_size=width,
        hidden_sizes=[width * spec.expansion * 2**stage for stage in range(4)],
        depths=list(spec.blocks),
        layer_type=spec.block,
        downsample_in_bottleneck=backbone.stride_in_1x1,
    )
    return Family("ResNet", config, layouts.resnet, "pooled")


def _vit(network: Network, model: Any) -> Family:
    from transformers import Dinov2Config, Dinov2WithRegistersConfig, ViTConfig

    if model.global_pool != "token" or model.cls_token is None:
        raise _refusal(network, "its feature is not the class token")
    mlp, attention = model.blocks[0].mlp, model.blocks[0].attn
    options: dict[str, Any] = {
        "hidden_size": model.embed_dim,
        "num_hidden_layers": len(model.blocks),
        "num_attention_heads": attention.num_heads,
        "hidden_act": _activation(network, mlp.act),
        "layer_norm_eps": model.norm.eps,
        "image_size": int(model.patch_embed.img_size[0]),
        "patch_size": int(model.patch_embed.patch_size[0]),
        "num_channels": network.channels,
        "qkv_bias": attention.qkv.bias is not None,
    }
    wide = mlp.fc1.out_features
    side = options["image_size"]
    if isinstance(model.blocks[0].ls1, nn.Identity):
        plain = ViTConfig(**options, intermediate_size=wide)
        return Family("ViT", plain, layouts.vit, "token", {"add_pooling_layer": False}, side)
    if wide % model.embed_dim:
        raise _refusal(network, "the width of its MLPs is no multiple of that of its tokens")
    options["mlp_ratio"] = wide // model.embed_dim
    if model.num_reg_tokens:
        with_registers = Dinov2WithRegistersConfig(**options, num_register_tokens=model.num_reg_tokens)
        return Family("DINOv2 with registers", with_registers, layouts.vit, "token", positions=side)
    config = Dinov2Config(**options, use_mask_token=False)
    return Family("DINOv2", config, layouts.vit, "token", positions=side)


def _convnext(network: Network, model: Any) -> Family:
    from transformers import ConvNextConfig, ConvNextV2Config

    if not isinstance(model.stem[0], nn.Conv2d) or len(model.stem) != 2:
        raise _refusal(network, "its first layers are not those of ConvNeXt")
    last = getattr(model.head, "norm", None)
    if last is None:
        raise _refusal(network, "its last norm comes before the mean of the map, and theirs after it")
    eps = {module.eps for stage in model.stages for module in stage.modules() if hasattr(module, "eps")}
    if eps != {_CONVNEXT_EPS}:
        raise _refusal(network, f"its norms have an epsilon of {min(eps):g}, and theirs {_CONVNEXT_EPS:g}")
    second = any(".grn." in name for name in network.read.state)
    options: dict[str, Any] = {
        "num_channels": network.channels,
        "patch_size": int(model.stem[0].kernel_size[0]),
        "num_stages": len(model.stages),
        "hidden_sizes": [int(stage.blocks[0].conv_dw.out_channels) for stage in model.stages],
        "depths": [len(stage.blocks) for stage in model.stages],
        "hidden_act": _activation(network, model.stages[0].blocks[0].mlp.act),
        "layer_norm_eps": last.eps,
        "image_size": network.images.size,
    }
    if second:
        return Family("ConvNeXt V2", ConvNextV2Config(**options), layouts.convnext, "pooled")
    return Family("ConvNeXt", ConvNextConfig(**options), layouts.convnext, "pooled")


def _swin(network: Network, model: Any) -> Family:
    from transformers import SwinConfig

    first = model.layers[0].blocks[0]
    side = int(model.patch_embed.img_size[0])
    config = SwinConfig(
        image_size=side,
        patch_size=int(model.patch_embed.patch_size[0]),
        num_channels=network.channels,
        embed_dim=int(model.patch_embed.proj.out_channels),
        depths=[len(layer.blocks) for layer in model.layers],
        num_heads=[int(layer.blocks[0].attn.num_heads) for layer in model.layers],
        window_size=int(first.window_size[0]),
        mlp_ratio=first.mlp.fc1.out_features / first.mlp.fc1.in_features,
        qkv_bias=first.attn.qkv.bias is not None,
        hidden_act=_activation(network, first.mlp.act),
        layer_norm_eps=model.norm.eps,
    )
    return Family("Swin Transformer", config, layouts.swin, "pooled", positions=side)


def _activation(network: Network, layer: Any) -> str:
    """transformers' name of an activation, found by what the layer computes.

    Raises:
        UserError: it is none of the usual ones.
    """
    from transformers.activations import ACT2FN

    x = torch.linspace(-4, 4, 1001)
    with torch.inference_mode():
        y = layer(x.clone()) if isinstance(layer, nn.Module) else None
        for name in ("gelu", "gelu_pytorch_tanh", "quick_gelu", "relu", "silu"):
            if y is not None and torch.allclose(y, ACT2FN[name](x), atol=1e-6, rtol=0):
                return name
    raise _refusal(network, f"transformers has no activation {type(layer).__name__}")
