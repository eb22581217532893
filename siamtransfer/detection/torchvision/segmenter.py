"""torchvision's FCN and DeepLab v3 heads on a dilated ResNet whose loading is verified.

Sources: Long et al. 2015 (FCN) and Chen et al. 2017 (arXiv 1706.05587, DeepLab v3), as torchvision builds
their heads. How the trunk is dilated, how logits are resized and how the loss counts are the configuration's.

Legend: N images of H x W pixels, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models.segmentation.deeplabv3 import DeepLabHead
from torchvision.models.segmentation.fcn import FCNHead

from siamtransfer.backbones.resnet import ResNetBackbone
from siamtransfer.checkpoints.normalisation import Normalisation
from siamtransfer.checkpoints.read_backbone import ReadBackbone
from siamtransfer.detection.dilations import dilate_first_convolutions
from siamtransfer.detection.pixel_loss import PixelLoss, resize
from siamtransfer.detection.torchvision.segmenter_recipe import SegmenterDesign
from siamtransfer.detection.torchvision.trunk import (
    dilated_architecture,
    freeze_norms,
    load_resnet,
    pixel_stride,
    prove_loaded,
)

ATROUS_PIXELS = (96, 192, 288)
"""The rates of DeepLab's three dilated convolutions in pixels: 6, 12 and 18 at output stride 16, twice that
at 8 (arXiv 1706.05587, section 4)."""
_STAGES = ("res2", "res3", "res4", "res5")


class Segmenter(nn.Module):
    """A trunk, a head on its last stage and, if the design has one, an auxiliary head on a stage before.

    `ignore` is the value of target pixels that count nowhere.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        trunk: ResNetBackbone,
        classes: int,
        design: SegmenterDesign,
        normalisation: Normalisation,
        ignore: int,
    ):
        super().__init__()
        self.backbone = trunk
        assert trunk.stem is not None
        self.stride = pixel_stride(trunk.stem, design.output_stride)
        self.head = _build_head(trunk.dim, classes, design, self.stride)
        self.auxiliary = None
        if design.auxiliary:
            self._auxiliary_stage = _STAGES.index(design.auxiliary)
            self.auxiliary = FCNHead(trunk.dim >> (len(_STAGES) - 1 - self._auxiliary_stage), classes)
        self.loss = PixelLoss(ignore, design.align_corners, design.over_ignored)
        self.weights = design.weight, design.auxiliary_weight
        for name in ("mean", "std"):
            value = torch.tensor(getattr(normalisation, name))[:, None, None]
            self.register_buffer(name, value, persistent=False)

    def forward(self, images: Tensor, targets: Tensor | None = None) -> dict[str, Tensor]:
        """With targets int64[N,H,W] the losses, else logits[N,C,h,w] of feature maps: `out` and, in training,
        `aux`. `images` is uint8[N,3,H,W] in RGB."""
        pixels = self.loss.on_grid((images / 255 - self.mean) / self.std, self.stride, 0)
        stages = self.backbone.stages(pixels)
        logits = {"out": self.head(stages[-1])}
        if self.auxiliary is not None and self.training:
            logits["aux"] = self.auxiliary(stages[self._auxiliary_stage])
        if targets is None:
            return logits
        targets = self.loss.on_grid(targets, self.stride, self.loss.ignore)
        losses = {"loss_sem_seg": self.weights[0] * self.loss(logits["out"], targets)}
        if "aux" in logits:
            losses["loss_sem_seg_aux"] = self.weights[1] * self.loss(logits["aux"], targets)
        return losses

    def predict(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        """The predicted classes int64[N,*size] of images uint8[N,3,H,W].

        Logits are brought to the size of the images and from there to `size`, bilinear, as Detectron2 does.
        """
        height, width = images.shape[-2:]
        grid = self.loss.on_grid(images, self.stride, 0).shape[-2:]
        logits = resize(self(images)["out"], grid, self.loss.align_corners)
        return resize(logits[..., :height, :width], size, align_corners=False).argmax(1)


def _build_head(channels: int, classes: int, design: SegmenterDesign, stride: int) -> nn.Module:
    if design.head == "fcn":
        return FCNHead(channels, classes)
    return DeepLabHead(channels, classes, [max(rate // stride, 1) for rate in ATROUS_PIXELS])


def build_segmenter(read: ReadBackbone, classes: int, design: SegmenterDesign, ignore: int) -> Segmenter:
    """A segmenter whose trunk holds the tensors of `read`; the heads are drawn from torch's generator.

    Raises:
        UserError: the backbone is no ResNet, was dilated otherwise, or a tensor of it did not arrive.
    """
    kind = dilated_architecture(read, design.output_stride, contracted=design.contracted)
    trunk = load_resnet(read, kind)
    if not design.contracted:
        dilate_first_convolutions(trunk)
    if design.trunk_norm == "frozen":
        freeze_norms(trunk)
    segmenter = Segmenter(trunk, classes, design, read.normalisation, ignore)
    prove_loaded(segmenter.backbone, read)
    return segmenter
