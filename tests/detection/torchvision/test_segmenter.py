"""The network of a segmentation in torchvision: dilated trunk, heads, losses, norms; against Detectron2's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from support import paths
from support.small_runs import differences
from support.small_segmentation import DESIGN, dilations
from torch import nn
from torch.nn import functional as F
from torchvision.models.segmentation.deeplabv3 import DeepLabHead
from torchvision.models.segmentation.fcn import FCNHead

from siamtransfer.checkpoints.detectron2_keys import to_detectron2
from siamtransfer.checkpoints.read_backbone import ReadBackbone, read_backbone
from siamtransfer.detection.detectron2.compat import import_detectron2, is_installed
from siamtransfer.detection.layered_config import read_layered_config
from siamtransfer.detection.torchvision.segmenter import build_segmenter
from siamtransfer.detection.torchvision.segmenter_recipe import (
    segmenter_recipe_of,
)
from siamtransfer.detection.torchvision.trunk import prove_loaded
from siamtransfer.utils.errors import UserError

CONFIGS = paths.CONFIGS / "detection"


@pytest.fixture(scope="module")
def read() -> ReadBackbone:
    return read_backbone("random:resnet18:width=8")


@pytest.mark.parametrize(
    ("stride", "contracted", "expected"),
    [
        (32, False, [[1, 1, 1, 1], [1, 1, 1, 1]]),
        (16, False, [[1, 1, 1, 1], [2, 2, 2, 2]]),
        (8, False, [[2, 2, 2, 2], [4, 4, 4, 4]]),
        (8, True, [[1, 2, 2, 2], [2, 4, 4, 4]]),
    ],
)
def test_the_trunk_is_dilated_and_holds_the_weights(
    read: ReadBackbone, stride: int, contracted: bool, expected: list[list[int]]
) -> None:
    segmenter = build_segmenter(read, 3, replace(DESIGN, output_stride=stride, contracted=contracted), 255)
    assert dilations(segmenter) == expected
    assert differences(segmenter.backbone.state_dict(), read.state) == []
    images = torch.zeros(2, 3, 65, 97, dtype=torch.uint8)
    assert segmenter.eval()(images)["out"].shape == (2, 3, 64 // stride + 1, 96 // stride + 1)
    assert segmenter.predict(images, (40, 50)).shape == (2, 40, 50)


def test_small_stems_count_from_their_own_stride() -> None:
    read = read_backbone("random:resnet18:width=8:stem=small")
    segmenter = build_segmenter(read, 3, DESIGN, 255).eval()
    images = torch.zeros(1, 3, 33, 33, dtype=torch.uint8)
    assert segmenter.stride == 2 and segmenter(images)["out"].shape[-2:] == (17, 17)


def test_a_tensor_that_did_not_arrive_is_named(read: ReadBackbone) -> None:
    for norm in ("own", "frozen"):
        segmenter = build_segmenter(read, 3, replace(DESIGN, trunk_norm=norm), 255)  # type: ignore[arg-type]
        segmenter.backbone.layer2[0].bn1.weight.data[0] += 1e-3
        with pytest.raises(UserError, match=r"1 tensors of the trunk .*, layer2.0.bn1.weight for one"):
            prove_loaded(segmenter.backbone, read)


@pytest.mark.detectron2
@pytest.mark.skipif(not is_installed(), reason="Detectron2 is not installed")
@pytest.mark.parametrize(("depth", "config"), [(18, "base-fcn16"), (50, "base-fcn-d8")])
def test_all_but_the_head_is_detectron2s(depth: int, config: str) -> None:
    """With the same heads and weights the losses and the predicted masks are those of Detectron2."""
    import_detectron2()
    from detectron2.modeling import META_ARCH_REGISTRY

    from siamtransfer.detection.detectron2.segmentor import register_segmentors
    from siamtransfer.detection.detectron2.settings import build_settings
    from siamtransfer.detection.detectron2.trunk import register_trunks

    register_trunks()
    register_segmentors()
    read = read_backbone(f"random:resnet{depth}:width=8")
    stem = ["MODEL.RESNETS.STEM_OUT_CHANNELS", "8", "MODEL.RESNETS.WIDTH_PER_GROUP", "8"]
    out = ["MODEL.RESNETS.RES2_OUT_CHANNELS", "8" if depth == 18 else "32", "MODEL.RESNETS.NORM", "BN"]
    rest = ["MODEL.SEM_SEG_HEAD.NORM", "BN", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "5", "MODEL.DEVICE", "cpu"]
    pixels = [
        "MODEL.RESNETS.STRIDE_IN_1X1",
        "False",
        "INPUT.FORMAT",
        "RGB",
        "MODEL.RESNETS.DEPTH",
        str(depth),
    ]
    layered = read_layered_config([CONFIGS / f"{config}.yaml"], [*stem, *out, *rest, *pixels])
    cfg = build_settings(layered)
    cfg.MODEL.PIXEL_MEAN = [255 * value for value in read.normalisation.mean]
    cfg.MODEL.PIXEL_STD = [255 * value for value in read.normalisation.std]
    theirs: Any = META_ARCH_REGISTRY.get("FCNSegmentor")(cfg)
    design = segmenter_recipe_of({key: stated.value for key, stated in layered.items()}, "fcn").design
    ours = build_segmenter(read, 5, design, 255)
    theirs.backbone.load_state_dict({to_detectron2(name): value for name, value in read.state.items()})
    theirs.sem_seg_head.main, theirs.sem_seg_head.auxiliary = ours.head, ours.auxiliary
    assert (ours.auxiliary is not None) == (config == "base-fcn-d8")
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, 70, 91), generator=generator, dtype=torch.uint8)
    targets = torch.randint(0, 5, (2, 70, 91), generator=generator)
    targets[:, :9] = 255
    torch.manual_seed(1)  # of the dropout
    found = ours.train()(images, targets)
    torch.manual_seed(1)
    expected = theirs.train()(
        [{"image": image, "sem_seg": mask} for image, mask in zip(images, targets, strict=True)]
    )
    assert found.keys() == expected.keys()
    for name, loss in expected.items():
        torch.testing.assert_close(found[name], loss, rtol=1e-4, atol=1e-5)
    ours.eval()
    with torch.no_grad():
        (logits,) = theirs.eval()([{"image": images[0], "height": 41, "width": 60}])
        agree = ours.predict(images[:1], (41, 60))[0] == logits["sem_seg"].argmax(0)
    assert agree.float().mean() > 0.999, "equal but for ties in the last bits"


def test_the_heads_are_torchvisions(read: ReadBackbone) -> None:
    fcn = build_segmenter(read, 5, replace(DESIGN, auxiliary="res4"), 255)
    assert type(fcn.head) is FCNHead and fcn.head[-1].out_channels == 5
    assert isinstance(fcn.auxiliary, FCNHead) and fcn.auxiliary[0].in_channels == 32
    for stride, rates in ((8, [12, 24, 36]), (16, [6, 12, 18])):
        deep = build_segmenter(read, 5, replace(DESIGN, head="deeplab", output_stride=stride), 255)
        assert type(deep.head) is DeepLabHead
        dilated = [m.dilation[0] for m in deep.head.modules() if isinstance(m, nn.Conv2d)]
        assert [rate for rate in dilated if rate > 1] == rates


def test_losses_by_hand(read: ReadBackbone) -> None:
    """The loss of the head on the last stage, and the weighted one of the auxiliary head on res4."""
    design = replace(DESIGN, align_corners=False, auxiliary="res4", auxiliary_weight=0.4, weight=2.0)
    segmenter = build_segmenter(read, 5, design, 255)
    for module in segmenter.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    images = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0)).byte()
    targets = torch.randint(0, 5, (2, 64, 64), generator=torch.Generator().manual_seed(1))
    targets[0] = 255
    losses = segmenter(images, targets)
    mean, std = (torch.tensor(values)[:, None, None] for values in read.normalisation)
    *_, c4, c5 = segmenter.backbone.stages((images / 255 - mean) / std)
    assert segmenter.auxiliary is not None
    for name, weight, logits in (
        ("loss_sem_seg", 2.0, segmenter.head(c5)),
        ("loss_sem_seg_aux", 0.4, segmenter.auxiliary(c4)),
    ):
        resized = F.interpolate(logits, size=(64, 64), mode="bilinear")
        expected = weight * F.cross_entropy(resized[1:], targets[1:])
        torch.testing.assert_close(losses[name], expected)
    assert set(segmenter.eval()(images)) == {"out"}


def test_frozen_norms_neither_learn_nor_follow(read: ReadBackbone) -> None:
    segmenter = build_segmenter(read, 5, replace(DESIGN, trunk_norm="frozen"), 255).train()
    assert not any("bn" in name for name, _ in segmenter.backbone.named_parameters())
    before = {name: value.clone() for name, value in segmenter.backbone.named_buffers()}
    segmenter(torch.randint(0, 256, (2, 3, 64, 64)).byte(), torch.zeros(2, 64, 64, dtype=torch.int64))
    assert len(before) == 4 * 20
    assert all(torch.equal(value, before[name]) for name, value in segmenter.backbone.named_buffers())
