"""A ResNet for evaluation only: each batch norm is folded into the convolution before it; others stay."""

from __future__ import annotations

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.backbones.resnet import ResNetBackbone


def fold_batchnorm(backbone: ResNetBackbone) -> ResNetBackbone:
    """A copy in eval mode that computes the same, up to rounding, with fewer passes over the maps; `backbone`
    and its tensors stay as they are. A network without batch norm is copied only."""
    from torchvision.models.resnet import BasicBlock, Bottleneck

    copy = Architecture.of(backbone).build()
    assert isinstance(copy, ResNetBackbone)
    copy.load_state_dict(backbone.state_dict(), strict=True)
    copy.to(next(backbone.parameters()).device).eval()
    if backbone.norm != "batch":
        return copy
    for module in [copy, *(m for m in copy.modules() if isinstance(m, BasicBlock | Bottleneck))]:
        for number in (1, 2, 3):
            norm = getattr(module, f"bn{number}", None)
            if norm is not None:
                setattr(module, f"conv{number}", fuse_conv_bn_eval(getattr(module, f"conv{number}"), norm))
                setattr(module, f"bn{number}", nn.Identity())
        projection = getattr(module, "downsample", None)
        if projection is not None:
            module.downsample = fuse_conv_bn_eval(*projection)
    return copy
