"""torchvision's ResNets without a classifier, of any width, also with the stem for small images.

The tensors have torchvision's names. torchvision takes seconds to import, so it is imported when a network is
built.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from siamtransfer.backbones.backbone import Backbone, check_channels
from siamtransfer.backbones.names import (
    NORMS,
    OUTPUT_STRIDES,
    RESNETS,
    STEMS,
    NetworkNorm,
    ResNetSpec,
    Stem,
)
from siamtransfer.backbones.norms import CHANNELS_OF_GROUP, NORM_LAYERS, standardise_convolutions
from siamtransfer.utils.errors import UserError


class ResNetBackbone(Backbone):
    """torchvision's ResNet without its classifier: x[N, 3, H, W] to h[N, D], the mean over the last stage.
    `in_channels` is the 3 of x.

    `width` is the number of channels of the stem (64 in the papers); every stage scales with it. STEMS has
    the stems; "small" is the one for images of about 32 pixels. `stride_in_1x1` moves the stride of a
    bottleneck block from the 3x3 convolution to the first 1x1 one (MSRA's models). `output_stride` 16 and 8
    replace the stride of the last stages by dilation, as torchvision's `replace_stride_with_dilation` does.
    None of the last three changes a tensor's name or shape, except for the kernel of the stem. `norm` is what
    stands in the place of batch norm (norms.py); no other one has running statistics.
    The initialisation is torchvision's: He for convolutions (by the outputs, and by the inputs where no norm
    keeps the scale), ones and zeros for the norms, and with `zero_init_residual` zero for the last norm of
    each block (Goyal et al. 2017, section 5.1).
    """

    def __init__(
        self,
        name: str,
        width: int,
        stem: Stem,
        zero_init_residual: bool = False,
        *,
        stride_in_1x1: bool = False,
        output_stride: int = 32,
        norm: NetworkNorm = "batch",
        in_channels: int = 3,
    ):
        super().__init__()
        spec, first = RESNETS[name], STEMS[stem]
        self.name, self.width, self.stem = name, width, stem
        self.stride_in_1x1, self.output_stride = stride_in_1x1, output_stride
        self.norm, self.in_channels = norm, in_channels
        self.dim = 8 * width * spec.expansion

        self.conv1 = nn.Conv2d(in_channels, width, first.kernel, first.stride, first.padding, bias=False)
        self.bn1 = NORM_LAYERS[norm](width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1) if first.pool else nn.Identity()
        out = spec.expansion
        self.layer1 = _build_stage(spec, norm, 0, width, width, stride=1)
        self.layer2 = _build_stage(spec, norm, 1, width * out, 2 * width, stride=2)
        self.layer3 = _build_stage(spec, norm, 2, 2 * width * out, 4 * width, stride=2)
        self.layer4 = _build_stage(spec, norm, 3, 4 * width * out, 8 * width, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        if stride_in_1x1:
            for stage in (self.layer2, self.layer3, self.layer4):
                _move_stride_to_1x1(stage[0])
        dilation = 1
        for stage in {32: [], 16: [self.layer4], 8: [self.layer3, self.layer4]}[output_stride]:
            _dilate(stage, dilation)
            dilation *= 2
        self._initialise(zero_init_residual)
        if norm == "group-ws":
            standardise_convolutions(self)

    def _initialise(self, zero_init_residual: bool) -> None:
        from torchvision.models.resnet import BasicBlock, Bottleneck

        mode: Any = "fan_in" if self.norm == "none" else "fan_out"
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu")
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


def check_resnet(
    name: str,
    width: int,
    stem: str,
    stride_in_1x1: bool,
    output_stride: int,
    norm: str,
    in_channels: int,
) -> None:
    """Raises UserError where a choice does not exist for this ResNet."""
    if stem not in STEMS:
        raise UserError(f"backbone stem {stem!r} is unknown; take {', '.join(STEMS)}")
    if RESNETS[name].inner_width(width) < 1:
        raise UserError(f"backbone width {width} leaves {name} without channels; the full width is 64")
    if stride_in_1x1 and not RESNETS[name].bottleneck:
        raise UserError(f"{name} has no 1x1 convolution at the beginning of its blocks, which could stride")
    if output_stride not in OUTPUT_STRIDES:
        strides = ", ".join(map(str, OUTPUT_STRIDES))
        raise UserError(f"output stride {output_stride} is none of {strides}")
    if norm not in NORMS:
        raise UserError(f"backbone norm {norm!r} is unknown; take {', '.join(NORMS)}")
    if norm.startswith("group") and width < CHANNELS_OF_GROUP:
        raise UserError(
            f"backbone norm {norm} has groups of {CHANNELS_OF_GROUP} channels or more, and backbone width is "
            f"{width}: take a width of {CHANNELS_OF_GROUP} or more"
        )
    check_channels(in_channels)


def resnet_tensors(
    name: str, width: int, stem: Stem, in_channels: int = 3, norm: NetworkNorm = "batch"
) -> dict[str, Tensor]:
    """The tensors of `ResNetBackbone` in its order, on the device meta; torchvision is not imported."""
    spec, kernel = RESNETS[name], STEMS[stem].kernel
    tensors = _convolution_and_norm("conv1", "bn1", in_channels, width, kernel, norm)
    channels = width
    for stage, count in enumerate(spec.blocks):
        inner, out = spec.inner_width(width << stage), (width << stage) * spec.expansion
        for block in range(count):
            path = f"layer{stage + 1}.{block}."
            sizes = [(channels, inner, 3), (inner, out, 3)]
            if spec.bottleneck:
                sizes = [(channels, inner, 1), (inner, inner, 3), (inner, out, 1)]
            for place, (before, after, side) in enumerate(sizes, start=1):
                groups = spec.groups if side == 3 else 1
                tensors |= _convolution_and_norm(
                    f"{path}conv{place}", f"{path}bn{place}", before // groups, after, side, norm
                )
            if block == 0 and (stage > 0 or channels != out):
                projection = f"{path}downsample."
                tensors |= _convolution_and_norm(f"{projection}0", f"{projection}1", channels, out, 1, norm)
            channels = out
    return tensors


def _convolution_and_norm(
    convolution: str, norm: str, before: int, after: int, side: int, kind: NetworkNorm
) -> dict[str, Tensor]:
    """The tensors of a convolution without a bias and of the norm behind it, on the device meta."""
    tensors = {f"{convolution}.weight": torch.empty(after, before, side, side, device="meta")}
    statistics = ("running_mean", "running_var") if kind == "batch" else ()
    for name in ("weight", "bias", *statistics):
        tensors[f"{norm}.{name}"] = torch.empty(after, device="meta")
    if kind == "batch":
        tensors[f"{norm}.num_batches_tracked"] = torch.empty((), dtype=torch.int64, device="meta")
    return tensors


def _build_stage(
    spec: ResNetSpec, norm: NetworkNorm, index: int, channels: int, planes: int, stride: int
) -> nn.Sequential:
    """A stage of torchvision's blocks; the first one changes stride and channels and so has a projection."""
    from torchvision.models.resnet import BasicBlock, Bottleneck

    block = Bottleneck if spec.bottleneck else BasicBlock
    out, layer = planes * spec.expansion, NORM_LAYERS[norm]
    projection = None
    if stride != 1 or channels != out:
        projection = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), layer(out))
    same: Any = {"groups": spec.groups, "base_width": spec.width_per_group, "norm_layer": layer}
    first = block(channels, planes, stride, projection, **same)
    return nn.Sequential(first, *(block(out, planes, **same) for _ in range(1, spec.blocks[index])))


def _move_stride_to_1x1(block: nn.Module) -> None:
    """Gives the stride of a bottleneck block's 3x3 convolution to its first 1x1 convolution."""
    first, second = block.conv1, block.conv2
    assert isinstance(first, nn.Conv2d) and isinstance(second, nn.Conv2d)
    first.stride, second.stride = second.stride, (1, 1)


def _dilate(stage: nn.Sequential, dilation: int) -> None:
    """Takes the stride of 2 out of a stage; its 3x3 convolutions after that place get twice `dilation`.

    `dilation` is that of the stage before. The first 3x3 convolution of the first block keeps it, as in
    torchvision (bottlenecks) and timm (both kinds of block).
    """
    for number, block in enumerate(stage):
        convolutions = [m for m in block.modules() if isinstance(m, nn.Conv2d)]
        for convolution in convolutions:
            convolution.stride = (1, 1)
        spatial = [convolution for convolution in convolutions if convolution.kernel_size == (3, 3)]
        for place, convolution in enumerate(spatial):
            size = dilation if number == place == 0 else 2 * dilation
            convolution.dilation = convolution.padding = (size, size)
