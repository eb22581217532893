"""The proof that Detectron2 computes with converted weights what torchvision computes with the original ones.

This is the proof of ResNets; timm_parity.py has that of timm's networks.
Detectron2 builds the trunk from the written configuration, and its checkpointer loads the written weights.
Both trunks get the same 8-bit image. Every tensor has to arrive to the bit, and the outputs of res2 to res5
have to agree in float32 and, far more closely, in float64. The trunks of segmentation are covered too: D16,
whose res5 is dilated as Detectron2 does it, and D8, whose res4 and res5 are dilated as torchvision does it.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.backbones.resnet import ResNetBackbone
from siamtransfer.checkpoints.detectron2_keys import TIMM_TRUNK, in_model, to_detectron2
from siamtransfer.checkpoints.file_format import Normalisation
from siamtransfer.detection.detectron2.compat import Detectron2, import_detectron2
from siamtransfer.detection.detectron2.convertible import layouts
from siamtransfer.detection.detectron2.own_keys import default_settings
from siamtransfer.detection.detectron2.timm_settings import TIMM_LAYOUTS
from siamtransfer.detection.detectron2.trunk import PLAIN, SMALL_STEM_FPN, SMALL_STEM_PLAIN, register_trunks
from siamtransfer.detection.dilations import dilate_first_convolutions
from siamtransfer.utils.errors import UserError

STAGES = ("res2", "res3", "res4", "res5")
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10}
IMAGE = (3, 96, 128)
DILATED_SIDE = 64
"""Dilated trunks see the upper left corner of the image of so many pixels: their maps are up to 16 times as
large."""
DILATED = {"D16": (1, 2, False), "D8": (2, 4, True)}
"""The dilated layouts: RES4_DILATION, RES5_DILATION and CONTRACT_DILATION of MODEL.RESNETS."""


@dataclass(frozen=True)
class Parity:
    """The result of the comparison.

    errors: (dtype, layout, stage) to max|a - b| / max|b|, a Detectron2's output and b that of the `library`
    of the original; tensors: layout to the number of tensors in the trunk, all of which arrived.
    """

    errors: dict[tuple[torch.dtype, str, str], float]
    tensors: dict[str, int]
    detectron2: Detectron2
    library: str = "torchvision"

    def metrics(self) -> dict[str, float]:
        """The largest error of each dtype and layout, by the name that it has in a record."""
        largest: dict[str, float] = {}
        for (dtype, layout, _), error in self.errors.items():
            name = f"parity/{str(dtype).removeprefix('torch.')}/{layout}/max_relative_error"
            largest[name] = max(error, largest.get(name, 0.0))
        return largest

    def check(self) -> None:
        """Compares the errors with the tolerance.

        Raises:
            UserError: outputs differ by more; names the stages.
        """
        wrong = [
            f"{stage} of {layout} by {error:.1e} in {dtype}"
            for (dtype, layout, stage), error in self.errors.items()
            if not error <= TOLERANCE[dtype]
        ]
        if wrong:
            raise UserError(
                f"Detectron2's outputs differ from {self.library}'s ({'; '.join(wrong[:4])}), so nothing was "
                "written: the conversion is wrong for these weights"
            )


def measure_parity(
    weights: Path, weights_config: Path, backbone: ResNetBackbone, normalisation: Normalisation
) -> Parity:
    """Compares the trunks in every layout that the architecture allows, and dilated.

    `weights` and `weights_config` are the written files, whatever their names; `backbone` holds the original
    weights in float32 and is not changed.

    Raises:
        UserError: Detectron2 is absent, or a tensor of its trunk did not get its value from the file.
    """
    detectron2 = import_detectron2()
    image = torch.randint(0, 256, (1, *IMAGE), generator=torch.Generator().manual_seed(0))
    errors: dict[tuple[torch.dtype, str, str], float] = {}
    tensors: dict[str, int] = {}
    for layout in (*layouts(Architecture.of(backbone)), *DILATED):
        cfg = configuration(layout, weights_config)
        model = build_trunk(cfg, layout)
        load_weights(model, weights)
        sources = {to_detectron2(name): tensor for name, tensor in backbone.state_dict().items()}
        tensors[layout] = count_loaded(model, layout, sources)
        reference = dilated_like(backbone, layout) if layout in DILATED else backbone
        seen = image[..., :DILATED_SIDE, :DILATED_SIDE] if layout in DILATED else image
        for dtype in TOLERANCE:
            detectron2_maps = detectron2_stages(model.to(dtype), cfg, layout, seen.to(dtype))
            torchvision_maps = torchvision_stages(reference, normalisation, seen.to(dtype))
            for stage, a, b in zip(STAGES, detectron2_maps, torchvision_maps, strict=True):
                errors[dtype, layout, stage] = relative_error(a, b)
    return Parity(errors, tensors, detectron2)


def dilated_like(backbone: ResNetBackbone, layout: str) -> ResNetBackbone:
    """`backbone` with its weights and the dilations of one of DILATED, made of torchvision's blocks."""
    _, last, contracted = DILATED[layout]
    architecture = Architecture.of(backbone)._replace(output_stride=32 // last)
    dilated = architecture.build()
    assert isinstance(dilated, ResNetBackbone)
    dilated.load_state_dict(backbone.state_dict())
    if not contracted:
        dilate_first_convolutions(dilated)
    return dilated.eval()


def relative_error(a: Tensor, b: Tensor) -> float:
    """max|a - b| / max|b|, infinite when the shapes differ."""
    if a.shape != b.shape:
        return float("inf")
    return float((a - b).abs().max() / b.abs().max().clamp_min(torch.finfo(b.dtype).tiny))


def configuration(layout: str, weights_config: Path) -> Any:
    """Detectron2's CfgNode for the layout, with the weights config merged into its defaults."""
    register_trunks()
    cfg = default_settings()
    if layout == "FPN":  # of a ResNet
        cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
        cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = list(STAGES)
    else:
        cfg.MODEL.RESNETS.OUT_FEATURES = list(STAGES[:3])  # the RoI heads own res5
    cfg.merge_from_file(str(weights_config))
    if layout in DILATED:
        plain = {SMALL_STEM_FPN: SMALL_STEM_PLAIN}
        settings = cfg.MODEL.RESNETS
        cfg.MODEL.BACKBONE.NAME = plain.get(cfg.MODEL.BACKBONE.NAME, PLAIN)
        settings.OUT_FEATURES = list(STAGES)
        settings.RES4_DILATION, settings.RES5_DILATION, settings.CONTRACT_DILATION = DILATED[layout]
    return cfg


def build_trunk(cfg: Any, layout: str) -> nn.Module:
    """Detectron2's backbone and, in C4, the RoI heads that own res5, in eval mode."""
    from detectron2.modeling import build_backbone, build_roi_heads

    model = nn.Module()
    with torch.random.fork_rng(devices=[]):
        backbone = model.backbone = build_backbone(cfg)
        if layout == "C4":
            model.roi_heads = build_roi_heads(cfg, backbone.output_shape())
    return model.eval()


def load_weights(model: nn.Module, weights: Path) -> None:
    """Loads the written file by Detectron2's own checkpointer.

    The checkpointer tells formats apart by the suffix, so it gets a link to the file that ends in .pkl.
    """
    from detectron2.checkpoint import DetectionCheckpointer

    with tempfile.TemporaryDirectory() as folder, _quiet():
        link = Path(folder) / "weights.pkl"
        link.symlink_to(weights.resolve())
        DetectionCheckpointer(model).load(str(link))


def count_loaded(model: nn.Module, layout: str, converted: Mapping[str, Tensor]) -> int:
    """Checks that each tensor of Detectron2's trunk equals its source, and each source has its tensor.

    `converted` are the sources by the names of the written file. Returns the number of tensors.
    """
    loaded = {name: tensor for name, tensor in model.state_dict().items() if _is_trunk(name, layout)}
    sources = {in_model(name, layout): tensor for name, tensor in converted.items()}
    unequal = [
        name
        for name in loaded.keys() | sources.keys()
        if name not in loaded or name not in sources or not torch.equal(loaded[name], sources[name])
    ]
    if unequal:
        raise UserError(
            f"{len(unequal)} tensors of Detectron2's {layout} trunk did not get the value of their source, "
            f"{min(unequal)} for one, so nothing was written: the conversion is wrong for these weights"
        )
    return len(loaded)


def _is_trunk(key: str, layout: str) -> bool:
    parts = (TIMM_TRUNK,) if layout in TIMM_LAYOUTS.values() else [f"{name}." for name in ("stem", *STAGES)]
    return key.startswith(tuple(in_model(part, layout) for part in parts))


def detectron2_stages(model: nn.Module, cfg: Any, layout: str, image: Tensor) -> list[Tensor]:
    """Detectron2's res2 to res5 for an RGB image[1,3,H,W] in 0..255, normalised as its models do it."""
    with torch.no_grad():
        backbone: Any = model.backbone
        maps = (backbone.bottom_up if layout == "FPN" else backbone)(detectron2_input(cfg, image))
        if layout == "C4":
            heads: Any = model.roi_heads
            maps["res5"] = heads.res5(maps["res4"])
    return [maps[stage] for stage in STAGES]


def detectron2_input(cfg: Any, image: Tensor) -> Tensor:
    """An RGB image[1,3,H,W] in 0..255 as Detectron2's models bring it to the trunk."""
    if cfg.INPUT.FORMAT == "BGR":
        image = image.flip(1)
    mean, std = (
        torch.tensor(values, dtype=image.dtype).view(3, 1, 1)
        for values in (cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD)
    )
    return (image - mean) / std


def original_input(normalisation: Normalisation, image: Tensor) -> Tensor:
    """An RGB image[1,3,H,W] in 0..255 as the original network takes it."""
    mean, std = (torch.tensor(values, dtype=image.dtype).view(3, 1, 1) for values in normalisation)
    return (image / 255 - mean) / std


def torchvision_stages(backbone: ResNetBackbone, normalisation: Normalisation, image: Tensor) -> list[Tensor]:
    """layer1 to layer4 of the original trunk for an RGB image[1,3,H,W] in 0..255, in the image's dtype."""
    before = next(backbone.parameters()).dtype
    with torch.no_grad():
        stages = list(backbone.to(image.dtype).eval().stages(original_input(normalisation, image)))
    backbone.to(before)
    return stages


@contextmanager
def _quiet() -> Iterator[None]:
    """No messages of Detectron2 on head tensors, which no backbone file has."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
