"""From an image of any size to one vector: a frozen backbone, pooled, at several scales.

Legend: N images, D numbers of a descriptor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from siamtransfer.backbones.backbone import Backbone
from siamtransfer.backbones.feature_layers import OUTPUT, FeatureLayers
from siamtransfer.backbones.feature_maps import FeatureMaps, fixed_size, patch_side
from siamtransfer.backbones.resnet import ResNetBackbone
from siamtransfer.checkpoints.assumptions import frozen_provenance
from siamtransfer.checkpoints.read_backbone import ReadBackbone
from siamtransfer.data.folders import FileImages
from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime, cpu_count
from siamtransfer.evaluation.dense.network import read_frozen, run_frozen
from siamtransfer.evaluation.retrieval.config import PIXEL_SIDE, DescriptorConfig, QueryCrop
from siamtransfer.evaluation.retrieval.ground_truth import Box
from siamtransfer.evaluation.retrieval.images import INTERPOLATION, Reading, Sizing, sized_batches
from siamtransfer.features.progress import PassProgress
from siamtransfer.utils.errors import UserError

GEM_FLOOR = 1e-6
IMAGES_A_WORKER = 64  # fewer are decoded before another process has started


class PooledBackbone(nn.Module):
    """x[N, 3, H, W] -> [N, D], float32: the poolings of a backbone's layers side by side.

    `output` is the class token of a ViT and the mean of the map of other networks (the layers' own output,
    see feature_layers.py); `mean` and `gem` are of the map (a ViT's patches).

    Raises:
        UserError: the backbone has no such layer, or no maps.
    """

    def __init__(self, backbone: Backbone, poolings: Sequence[str], layers: str, exponent: float):
        super().__init__()
        self.poolings, self.exponent = list(poolings), exponent
        self.multiple = patch_side(backbone) or 1
        self.output = FeatureLayers(backbone, [layers]) if OUTPUT in poolings else None
        self.maps = FeatureMaps(backbone, layers) if self.poolings != [OUTPUT] else None
        model: Any = getattr(backbone, "model", None)
        plain = hasattr(model, "blocks") and getattr(model, "global_pool", None) == "token"
        self._tokens_at_once = plain and layers == OUTPUT and getattr(model, "num_prefix_tokens", 0) > 0

    def forward(self, x: Tensor) -> Tensor:
        output, maps = self._forward(x)
        parts: dict[str, Tensor] = {}
        if output is not None:
            parts["output"] = output.float()
        if maps is not None:
            maps = maps.float()
            parts["mean"] = maps.mean(dim=(2, 3))
            parts["gem"] = (
                maps.clamp(min=GEM_FLOOR).pow(self.exponent).mean(dim=(2, 3)).pow(1 / self.exponent)
            )
        return torch.cat([parts[name] for name in self.poolings], dim=1)

    def _forward(self, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """The output and the map, from one pass where the backbone gives both at once."""
        if self.output is None or self.maps is None:
            return self.output(x) if self.output else None, self.maps(x) if self.maps else None
        backbone = self.maps.backbone
        if isinstance(backbone, ResNetBackbone) and len(self.maps.layers) == 1:
            maps = self.maps(x)
            return maps.mean(dim=(2, 3)), maps
        if self._tokens_at_once:
            model: Any = backbone.model
            ((maps, prefix),) = model.forward_intermediates(
                x, indices=1, return_prefix_tokens=True, norm=True, output_fmt="NCHW", intermediates_only=True
            )
            return prefix[:, 0], maps
        return self.output(x), self.maps(x)


class PixelDescriptor(nn.Module):
    """x[N, 3, H, W] -> the pixels of a square of PIXEL_SIDE, [N, 3 * PIXEL_SIDE^2]."""

    multiple = 1

    def forward(self, x: Tensor) -> Tensor:
        return functional.interpolate(x, (PIXEL_SIDE, PIXEL_SIDE), mode="bilinear", antialias=True).flatten(1)


class AtScales(nn.Module):
    """x[N, 3, H, W] -> the mean of a part's descriptors of x resized by each of `scales` [N, D].

    Smaller images are interpolated bilinearly (align_corners false, not antialiased), as in the public code
    of the benchmark and of DINO. Where sides are multiples of a ViT's patch only, the pixels over are left
    out at the right and at the bottom, as DINO's patch embedding does.
    """

    def __init__(self, part: PooledBackbone | PixelDescriptor, scales: Sequence[float]):
        super().__init__()
        self.part, self.scales = part, list(scales)

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor | None = None
        for scale in self.scales:
            resized = x
            if scale != 1:
                resized = functional.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)
            described = self.part(self._trimmed(resized))
            total = described if total is None else total + described
        assert total is not None
        return total / len(self.scales)

    def _trimmed(self, x: Tensor) -> Tensor:
        multiple = self.part.multiple
        height, width = (side - side % multiple for side in x.shape[2:])
        return x[:, :, :height, :width]

    @property
    def least(self) -> int:
        """The side in pixels from which an image has a patch, or a pixel, at every scale."""
        return math.ceil(self.part.multiple / min(self.scales))


@dataclass(frozen=True)
class DescriptorModel:
    """A frozen backbone, or raw pixels, and how it describes images.

    Attributes:
        source: the checkpoint's path, or the name of a baseline.
        read: None for raw pixels.
    """

    source: str
    part: AtScales
    read: ReadBackbone | None
    config: DescriptorConfig
    runtime: Runtime

    @classmethod
    def open(cls, config: DescriptorConfig, runtime: Runtime) -> DescriptorModel:
        """Reads the checkpoint.

        Raises:
            UserError: it cannot be read, has no such layer or no maps, or takes images of another size.
        """
        assert config.checkpoint is not None
        if config.checkpoint == "pixels":
            return cls(config.checkpoint, AtScales(PixelDescriptor(), config.scales), None, config, runtime)
        backbone, read = read_frozen(config, runtime)
        only = fixed_size(backbone)
        if only is not None and (config.resize, {config.size}, config.scales) != ("square", {*only}, [1.0]):
            raise UserError(
                f"{backbone.name} takes images of {only[0]} x {only[1]} pixels only: give --resize square "
                f"--size {only[0]} --scales 1"
            )
        pooled = PooledBackbone(backbone, config.poolings, config.layers, config.gem_exponent).eval()
        return cls(config.checkpoint, AtScales(pooled, config.scales), read, config, runtime)

    def describe(
        self,
        images: FileImages,
        what: str,
        *,
        crop: QueryCrop = "none",
        boxes: Sequence[Box | None] | None = None,
    ) -> Tensor:
        """float32[N, D] on the CPU and on every rank, in the order of the images; `what` names them.

        Raises:
            UserError: an image cannot be read or is too small, or a number is not finite.
        """
        runtime = self.runtime
        mine = range(runtime.rank, len(images), runtime.world_size)
        rows: Tensor | None = None
        done = 0
        with collectives.own_pace(f"describing the {what}"):
            for _, block in self.blocks(images, mine, what, crop=crop, boxes=boxes):
                if rows is None:  # a list of blocks would be in memory twice when it is joined
                    rows = torch.empty(len(mine), block.shape[1])
                rows[done : done + len(block)] = block
                done += len(block)
        return collectives.all_gather_rows(rows, len(images), runtime.device)

    def blocks(
        self,
        images: FileImages,
        indices: Sequence[int],
        what: str,
        *,
        crop: QueryCrop = "none",
        boxes: Sequence[Box | None] | None = None,
        skip: bool = False,
    ) -> Iterator[tuple[list[int], Tensor]]:
        """The indices of these images and their descriptors float32[b, D], a batch at a time; `skip`
        leaves out those that cannot be read. See `describe`."""
        config = self.config
        sizing = Sizing(config.size, config.resize, crop, self.part.least)
        reading = Reading(config.forward_batch_size, self._count_workers(len(indices)), skip)
        progress = PassProgress(what, len(images), shown=self.runtime.is_main)
        done = 0
        for batch in sized_batches(images, indices, sizing, reading, boxes):
            if batch:
                numbers, pixels = zip(*batch, strict=True)
                yield list(numbers), self._run(pixels)
            done += reading.batch
            progress.done(min(done * self.runtime.world_size, len(images)))

    def _run(self, batch: Sequence[Tensor]) -> Tensor:
        """[b, D] of b images uint8[3, H, W]; those of one size go through the network together."""
        groups: dict[tuple[int, int], list[int]] = {}
        for row, pixels in enumerate(batch):
            groups.setdefault((pixels.shape[1], pixels.shape[2]), []).append(row)
        found: list[Tensor | None] = [None] * len(batch)
        for rows in groups.values():
            pixels = torch.stack([batch[row] for row in rows])
            try:
                described = run_frozen(self.part, pixels, self.read, self.runtime, self.source).cpu()
            except AssertionError as error:  # timm's way to refuse a size
                height, width = pixels.shape[2:]
                raise UserError(
                    f"{self.source} does not take images of {width} x {height} pixels at --scales "
                    f"{' '.join(map(str, self.part.scales))} ({error}): give --resize square, a --size that "
                    "it takes and --scales 1"
                ) from error
            for row, vector in zip(rows, described, strict=True):
                found[row] = vector
        return torch.stack([vector for vector in found if vector is not None])

    def _count_workers(self, images: int) -> int:
        if self.config.workers is not None:
            return self.config.workers
        return min(8, cpu_count() // self.runtime.local_world_size, images // IMAGES_A_WORKER)

    @property
    def protocol(self) -> dict[str, Any]:
        """What moves the numbers, of the descriptors."""
        config = self.config
        return {
            "input": {
                "size": config.size,
                "resize": config.resize,
                "interpolation": INTERPOLATION[config.resize],
                "enlarged": config.resize == "square",
            },
            "scales": config.scales,
            "pooling": config.pooling,
            **({"gem_exponent": config.gem_exponent} if "gem" in config.poolings else {}),
            "precision": self.runtime.precision,
        }

    @property
    def provenance(self) -> dict[str, Any]:
        """What identifies the descriptors in a record; layers belong to the weights, so that two can be
        compared."""
        layers = self.config.layers if self.read else f"pixels of {PIXEL_SIDE} x {PIXEL_SIDE}"
        return {**frozen_provenance(self.source, self.read), "layers": layers}
