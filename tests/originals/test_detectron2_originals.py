"""Detectron2's own networks against what is read of their files: FPN and C4, either stride, BGR and std 1."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.checkpoint_files import save
from support.originals import TOLERANCE, as_trained, difference
from support.thorough import more
from torch import Tensor

from siamtransfer.detection.detectron2.compat import import_detectron2, is_installed
from siamtransfer.utils.errors import UserError

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.skipif(not is_installed(), reason="Detectron2 is not installed"),
]
MSRA = {
    "channels": "bgr",
    "normalisation": "0.4850000,0.4560000,0.4060000/0.00392156863,0.00392156863,0.00392156863",
}
"""What a model of Detectron2's defaults takes: BGR from 0 to 255 with the mean subtracted, as options."""


def configuration(layout: str, stride_in_1x1: bool) -> Any:
    """Detectron2's settings of a Faster R-CNN on a ResNet-50 whose batch norms are trained."""
    import_detectron2()
    from detectron2.config import get_cfg

    cfg = get_cfg()
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = "cpu", ""
    cfg.MODEL.RESNETS.NORM, cfg.MODEL.RESNETS.STRIDE_IN_1X1 = "BN", stride_in_1x1
    if layout == "C4":
        cfg.MODEL.ROI_HEADS.NAME = "Res5ROIHeads"
        return cfg
    cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256], [512]]
    cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
    cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p2", "p3", "p4", "p5"]
    cfg.MODEL.ROI_BOX_HEAD.NAME, cfg.MODEL.ROI_BOX_HEAD.NUM_FC = "FastRCNNConvFCHead", 1
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM, cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION = 32, 7
    return cfg


def build(layout: str, stride_in_1x1: bool) -> tuple[Any, Callable[[Tensor], Tensor]]:
    """A detector, and the function from RGB pixels in [0, 1] to the mean over its res5."""
    cfg = configuration(layout, stride_in_1x1)
    from detectron2.modeling import build_model

    torch.manual_seed(0)
    model = as_trained(build_model(cfg))
    mean, std = (torch.tensor(row).view(1, 3, 1, 1) for row in (cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD))

    def original(images: Tensor) -> Tensor:
        x = (images.flip(1) * 255 - mean) / std  # Detectron2's INPUT.FORMAT is BGR
        if layout == "C4":
            return model.roi_heads.res5(model.backbone(x)["res4"]).mean(dim=(2, 3))
        return model.backbone.bottom_up(x)["res5"].mean(dim=(2, 3))

    return model, original


@pytest.mark.parametrize(
    ("layout", "stride_in_1x1"), [("FPN", False), ("C4", True), more("FPN", True), more("C4", False)]
)
def test_a_detector_is_read_as_it_is_said_and_refused_without(
    tmp_path: Path, layout: str, stride_in_1x1: bool
) -> None:
    model, original = build(layout, stride_in_1x1)
    file = save({"model": model.state_dict(), "iteration": 89999}, tmp_path, "model_final.pth")
    error, read = difference(file, original, stride_in_1x1=stride_in_1x1, **MSRA)
    assert read.format == "detectron2"
    assert error < TOLERANCE
    with pytest.raises(UserError, match="stride"):
        difference(file, original)


def test_the_settings_beside_the_file_are_read(tmp_path: Path) -> None:
    model, original = build("FPN", True)
    file = save({"model": model.state_dict(), "iteration": 89999}, tmp_path, "model_final.pth")
    (tmp_path / "config.yaml").write_text(configuration("FPN", True).dump())
    assert difference(file, original)[0] < TOLERANCE


def test_the_pixel_buffers_in_the_file_are_read(tmp_path: Path) -> None:
    model, original = build("FPN", True)
    cfg = configuration("FPN", True)
    buffers = {
        name: torch.tensor(row).view(3, 1, 1)
        for name, row in (("pixel_mean", cfg.MODEL.PIXEL_MEAN), ("pixel_std", cfg.MODEL.PIXEL_STD))
    }
    file = save({"model": {**model.state_dict(), **buffers}}, tmp_path, "model_final.pth")
    assert difference(file, original, stride_in_1x1=True)[0] < TOLERANCE


def test_a_pickle_of_arrays_as_the_model_zoo_has_them(tmp_path: Path) -> None:
    model, original = build("C4", True)
    arrays = {key: tensor.numpy() for key, tensor in model.state_dict().items()}
    file = tmp_path / "model_final.pkl"
    file.write_bytes(pickle.dumps({"model": arrays, "__author__": "Detectron2 Model Zoo"}))
    assert difference(file, original, stride_in_1x1=True, **MSRA)[0] < TOLERANCE
