"""torchvision's ResNets without a classifier, of any width, also with the stem for small images.

The tensors have torchvision's names. torchvision takes seconds to import, so it is imported when a network is
built.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from siamtransfer.backbones.backbone import Backbone
from siamtransfer.backbones.names import RESNETS, ResNetSpec, Stem


class ResNetBackbone(Backbone):
    """torchvision's ResNet without its classifier: x[N, 3, H, W] to h[N, D], the mean over the last stage.

    `width` is the number of channels of the stem (64 in the papers); every stage scales with it. The "small"
    stem is the one for images of about 32 pixels: a 3x3 convolution of stride 1 and no max-pooling;
    "small-pad2" is solo-learn's, which pads by two pixels instead of one, so its maps are two pixels larger.
    The initialisation is torchvision's: He for convolutions, ones and zeros for batch norm, and with
    `zero_init_residual` zero for the last batch norm of each block (Goyal et al. 2017, section 5.1).
    """

    def __init__(self, name: str, width: int, stem: Stem, zero_init_residual: bool):
        super().__init__()
        spec = RESNETS[name]
        self.name, self.width, self.stem = name, width, stem
        self.dim = 8 * width * spec.expansion

        small = stem != "imagenet"
        if small:
            self.conv1 = nn.Conv2d(3, width, kernel_size=3, padding=1 if stem == "small" else 2, bias=False)
        else:
            self.conv1 = nn.Conv2d(3, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        out = spec.expansion
        self.layer1 = _build_stage(spec, 0, width, width, stride=1)
        self.layer2 = _build_stage(spec, 1, width * out, 2 * width, stride=2)
        self.layer3 = _build_stage(spec, 2, 2 * width * out, 4 * width, stride=2)
        self.layer4 = _build_stage(spec, 3, 4 * width * out, 8 * width, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self._initialise(zero_init_residual)

    def _initialise(self, zero_init_residual: bool) -> None:
        from torchvision.models.resnet import BasicBlock, Bottleneck

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif zero_init_residual and isinstance(module, Bottleneck):
                nn.init.zeros_(module.bn3.weight)
            elif zero_init_residual and isinstance(module, BasicBlock):
                nn.init.zeros_(module.bn2.weight)

    def stages(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The outputs of layer1 to layer4 (Detectron2's res2 to res5), each [N, C, H', W']."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        c2 = self.layer1(x)
        c3 = self.layer2(c2)
        c4 = self.layer3(c3)
        return c2, c3, c4, self.layer4(c4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.flatten(self.avgpool(self.stages(x)[-1]), 1)


def _build_stage(spec: ResNetSpec, index: int, channels: int, planes: int, stride: int) -> nn.Sequential:
    """A stage of torchvision's blocks; the first one changes stride and channels and so has a projection."""
    from torchvision.models.resnet import BasicBlock, Bottleneck

    block = Bottleneck if spec.bottleneck else BasicBlock
    out = planes * spec.expansion
    projection = None
    if stride != 1 or channels != out:
        projection = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
    widths = {"groups": spec.groups, "base_width": spec.width_per_group}
    first = block(channels, planes, stride, projection, **widths)
    return nn.Sequential(first, *(block(out, planes, **widths) for _ in range(1, spec.blocks[index])))
