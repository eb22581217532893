"""No box with a coordinate NaN or infinite comes to the roi_align of torchvision, which would crash."""

from __future__ import annotations

import multiprocessing

import pytest
import torch
from support.thorough import more
from torch import nn

from siamtransfer.checkpoints.read_backbone import read_backbone
from siamtransfer.detection.torchvision.model import Design, build_detector

pytestmark = pytest.mark.fault

SMALL = Design(
    masks=True, channels=16, hidden=32, anchors=(12, 18, 24, 36, 48), proposals=(40, 30), sampled=32,
    short_sides=(64, 72), short_side=64, long_side=96,
)  # fmt: skip


def _detect(value: float) -> None:
    """With a value in the weights of a part of a detector; a crash, or a box without numbers, is a status."""
    detector = build_detector(read_backbone("random:resnet18:width=8"), 3, SMALL)
    image = torch.rand(3, 64, 64)
    mask = torch.zeros(1, 64, 64, dtype=torch.uint8)
    target = {"boxes": torch.tensor([[4.0, 4.0, 30.0, 30.0]]), "labels": torch.tensor([1]), "masks": mask}
    for name in ("rpn.head.bbox_pred", "roi_heads.box_predictor.bbox_pred", "backbone.fpn"):
        part = detector.get_submodule(name)
        before = {key: tensor.clone() for key, tensor in part.state_dict().items()}
        for parameter in part.parameters():
            nn.init.constant_(parameter, value)
        with torch.no_grad():
            found = detector.eval()([image])[0]
            assert torch.isfinite(found["boxes"]).all()
            detector.train()([image], [target])
        part.load_state_dict(before)


@pytest.mark.parametrize("value", [float("nan"), more(float("inf")), more(-1e30)])
def test_weights_that_are_no_numbers_end_no_process(value: float) -> None:
    process = multiprocessing.get_context("fork").Process(target=_detect, args=(value,))
    process.start()
    process.join(60)
    if process.is_alive():
        process.kill()
    assert process.exitcode == 0
