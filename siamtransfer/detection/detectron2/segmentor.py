"""Fully convolutional segmentation for Detectron2: MoCo's FCN-16 and mmsegmentation's FCN-D8.

Sources: He et al. 2020 (arXiv 1911.05722), appendix, for two 3x3 convolutions of 256 channels and dilation
6; mmselfsup's fcn_r50-d8.py for the concatenated input, the dropout and the auxiliary head.

`register_segmentors()` adds the names to Detectron2's registries; call it before a model is built.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from siamtransfer.detection.detectron2.compat import import_detectron2
from siamtransfer.detection.pixel_loss import PixelLoss, resize
from siamtransfer.utils.errors import UserError

SEGMENTOR, HEAD = "FCNSegmentor", "FCNHead"
_PREDICTOR_STD = 0.01


class FCNBranch(nn.Module):
    """A feature map[N,Cin,h,w] to logits[N,C,h,w]: 3x3 convolutions with norm and ReLU, then a 1x1 one."""

    def __init__(
        self,
        channels: int,
        width: int,
        classes: int,
        *,
        convolutions: int,
        norm: str,
        dilation: int = 1,
        concat_input: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__()
        inputs = [channels, *[width] * (convolutions - 1)]
        self.convs = nn.Sequential(*(_convolution(size, width, norm, dilation) for size in inputs))
        self.fuse = _convolution(channels + width, width, norm, 1) if concat_input else None
        self.dropout = nn.Dropout2d(dropout)
        self.predictor = nn.Conv2d(width, classes, 1)
        nn.init.normal_(self.predictor.weight, std=_PREDICTOR_STD)
        nn.init.zeros_(self.predictor.bias)  # type: ignore[arg-type]

    def forward(self, feature: Tensor) -> Tensor:
        x = self.convs(feature)
        if self.fuse is not None:
            x = self.fuse(torch.cat((feature, x), 1))
        return self.predictor(self.dropout(x))


def _convolution(channels: int, width: int, norm: str, dilation: int) -> nn.Module:
    from detectron2.layers import Conv2d, get_norm
    from fvcore.nn.weight_init import c2_msra_fill

    layer = Conv2d(
        channels,
        width,
        3,
        padding=dilation,
        dilation=dilation,
        bias=not norm,
        norm=get_norm(norm, width),
        activation=F.relu,
    )
    c2_msra_fill(layer)
    return layer


class FCNHead(nn.Module):
    """The head of MODEL.SEM_SEG_HEAD on one feature of the trunk, with or without an auxiliary one."""

    def __init__(self, cfg: Any, shapes: Mapping[str, Any]):
        super().__init__()
        keys = cfg.MODEL.SEM_SEG_HEAD
        features = list(keys.IN_FEATURES)
        for feature in [*features, *filter(None, [keys.AUX_IN_FEATURE])]:
            if feature not in shapes:
                raise UserError(
                    f"MODEL.SEM_SEG_HEAD takes the feature {feature} and MODEL.RESNETS.OUT_FEATURES has "
                    f"{', '.join(shapes)}; make them agree"
                )
        if len(features) != 1 or keys.NUM_CONVS < 1:
            raise UserError(
                "FCNHead needs one feature in MODEL.SEM_SEG_HEAD.IN_FEATURES and NUM_CONVS of 1 or more"
            )
        self.feature, self.auxiliary_feature = features[0], keys.AUX_IN_FEATURE
        self.ignore_value, self.stride = keys.IGNORE_VALUE, shapes[features[0]].stride
        self.loss = PixelLoss(keys.IGNORE_VALUE, keys.ALIGN_CORNERS, keys.MEAN_OVER_IGNORED)
        self.weight, self.auxiliary_weight = keys.LOSS_WEIGHT, keys.AUX_LOSS_WEIGHT
        self.main = FCNBranch(
            shapes[self.feature].channels,
            keys.CONVS_DIM,
            keys.NUM_CLASSES,
            convolutions=keys.NUM_CONVS,
            norm=keys.NORM,
            dilation=keys.DILATION,
            concat_input=keys.CONCAT_INPUT,
            dropout=keys.DROPOUT,
        )
        self.auxiliary = None
        if self.auxiliary_feature:
            self.auxiliary = FCNBranch(
                shapes[self.auxiliary_feature].channels,
                keys.AUX_CONVS_DIM,
                keys.NUM_CLASSES,
                convolutions=1,
                norm=keys.NORM,
                dropout=keys.DROPOUT,
            )

    def on_grid(self, x: Tensor, value: float) -> Tensor:
        """x[N,...,H,W] padded for aligned corners, see `PixelLoss.on_grid`."""
        return self.loss.on_grid(x, self.stride, value)

    def losses(self, features: Mapping[str, Tensor], targets: Tensor) -> dict[str, Tensor]:
        """The weighted losses of a batch; `targets` is int64[N,H,W]."""
        losses = {"loss_sem_seg": self.weight * self.loss(self.main(features[self.feature]), targets)}
        if self.auxiliary is not None:
            logits = self.auxiliary(features[self.auxiliary_feature])
            losses["loss_sem_seg_aux"] = self.auxiliary_weight * self.loss(logits, targets)
        return losses

    def predict(self, features: Mapping[str, Tensor], size: Sequence[int]) -> Tensor:
        """logits[N,C,H,W] of the size of the images."""
        return resize(self.main(features[self.feature]), size, self.loss.align_corners)


@functools.cache
def register_segmentors() -> None:
    """Adds `SEGMENTOR` to Detectron2's meta-architectures and `HEAD` to its heads, once.

    The segmentor is Detectron2's SemanticSegmentor, whose head resizes to the size of the images: with the
    plain trunk a side need not be a multiple of the stride, and Detectron2's factor would miss the size.
    """
    import_detectron2()
    from detectron2.modeling import META_ARCH_REGISTRY, SEM_SEG_HEADS_REGISTRY
    from detectron2.modeling.meta_arch.semantic_seg import SemanticSegmentor
    from detectron2.modeling.postprocessing import sem_seg_postprocess
    from detectron2.structures import ImageList

    class FCNSegmentor(SemanticSegmentor):
        """A trunk and `FCNHead`; in training losses, else `sem_seg`, logits[C,H,W], of each image."""

        def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
            images = [
                (item["image"].to(self.device) - self.pixel_mean) / self.pixel_std for item in batched_inputs
            ]
            batch = ImageList.from_tensors(images, self.backbone.size_divisibility)
            pixels = self.sem_seg_head.on_grid(batch.tensor, 0)
            features = self.backbone(pixels)
            if self.training:
                masks = [item["sem_seg"].to(self.device) for item in batched_inputs]
                targets = ImageList.from_tensors(
                    masks, self.backbone.size_divisibility, self.sem_seg_head.ignore_value
                )
                labels = self.sem_seg_head.on_grid(targets.tensor, self.sem_seg_head.ignore_value)
                return self.sem_seg_head.losses(features, labels)
            logits = self.sem_seg_head.predict(features, pixels.shape[-2:])
            return [
                {"sem_seg": sem_seg_postprocess(result, size, item["height"], item["width"])}
                for result, size, item in zip(logits, batch.image_sizes, batched_inputs, strict=True)
            ]

    META_ARCH_REGISTRY.register(FCNSegmentor)
    SEM_SEG_HEADS_REGISTRY.register(FCNHead)
