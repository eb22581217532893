"""Semantic segmentation in Detectron2: dilated trunks, the head and its loss, the schedule, the scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from siamtransfer.detection.detectron2.compat import import_detectron2, is_installed
from siamtransfer.detection.detectron2.own_keys import default_settings
from siamtransfer.detection.detectron2.poly_lr import build_poly_lr
from siamtransfer.detection.detectron2.segmentor import FCNHead, register_segmentors
from siamtransfer.detection.detectron2.trunk import PLAIN, register_trunks
from siamtransfer.detection.pixel_loss import PixelLoss
from siamtransfer.segmentation.data.scenes import SceneMasks

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.skipif(
        not is_installed(), reason="Detectron2 is not installed: python scripts/get_detectron2.py"
    ),
]


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    import_detectron2()
    register_trunks()
    register_segmentors()


def settings(**resnets: Any) -> Any:
    cfg = default_settings()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.RESNETS.NORM = "BN"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
    cfg.MODEL.RESNETS.update(
        {"STEM_OUT_CHANNELS": 8, "WIDTH_PER_GROUP": 8, "RES2_OUT_CHANNELS": 32} | resnets
    )
    return cfg


def trunk(cfg: Any, name: str = PLAIN) -> Any:
    from detectron2.modeling import build_backbone

    cfg.MODEL.BACKBONE.NAME = name
    return build_backbone(cfg).eval().double()


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.randn(1, 3, 65, 95, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_trunk_of_stride_16_is_detectron2_s_to_the_bit(image: torch.Tensor) -> None:
    cfg = settings(OUT_FEATURES=["res4", "res5"], RES5_DILATION=2)
    theirs, ours = trunk(cfg, "build_resnet_backbone"), trunk(cfg)
    ours.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        a, b = theirs(image), ours(image)
    assert ours.output_shape() == theirs.output_shape()
    assert ours.output_shape()["res5"].stride == 16
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(("depth", "width"), [(18, 8), (50, 32)])
@pytest.mark.parametrize(("res4", "res5"), [(1, 2), (2, 4)])
def test_contracted_dilation_keeps_the_undilated_values(
    image: torch.Tensor, depth: int, width: int, res4: int, res5: int
) -> None:
    """At every second or fourth place stands what the network without dilation computes there."""
    kind = {"DEPTH": depth, "RES2_OUT_CHANNELS": width, "OUT_FEATURES": ["res4", "res5"]}
    plain = trunk(settings(**kind))
    dilated = trunk(settings(**kind, RES4_DILATION=res4, RES5_DILATION=res5, CONTRACT_DILATION=True))
    dilated.load_state_dict(plain.state_dict())
    with torch.no_grad():
        a, b = plain(image), dilated(image)
    assert dilated.output_shape()["res5"].stride == 32 // res5
    for name, step in (("res4", res4), ("res5", res5)):
        assert b[name].shape[-1] > a[name].shape[-1] or step == 1
        torch.testing.assert_close(b[name][..., ::step, ::step], a[name], rtol=1e-10, atol=1e-12)


def head_settings(**keys: Any) -> Any:
    cfg = settings()
    cfg.MODEL.SEM_SEG_HEAD.update(
        {"NUM_CLASSES": 5, "IN_FEATURES": ["res5"], "CONVS_DIM": 8, "NORM": "BN", "IGNORE_VALUE": 255} | keys
    )
    return cfg


def shapes() -> dict[str, Any]:
    from detectron2.layers import ShapeSpec

    return {"res4": ShapeSpec(channels=6, stride=8), "res5": ShapeSpec(channels=12, stride=8)}


def features() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(2, shape.channels, 5, 7, generator=generator) for name, shape in shapes().items()
    }


def test_the_head_of_moco() -> None:
    """Two 3x3 convolutions of dilation 6 with batch norm and ReLU, and a 1x1 one, by torch's own modules."""
    torch.manual_seed(0)
    head = FCNHead(head_settings(DILATION=6, ALIGN_CORNERS=True), shapes()).eval()
    assert [name for name, _ in head.named_children()] == ["main"]
    first, second = head.main.convs
    reference = nn.Sequential(
        *(
            nn.Sequential(
                nn.Conv2d(size, 8, 3, padding=6, dilation=6, bias=False), nn.BatchNorm2d(8), nn.ReLU()
            )
            for size in (12, 8)
        ),
        nn.Conv2d(8, 5, 1),
    ).eval()
    reference.load_state_dict(
        {
            **{f"{n}.0.weight": c.weight for n, c in enumerate((first, second))},
            **{
                f"{n}.1.{key}": v
                for n, c in enumerate((first, second))
                for key, v in c.norm.state_dict().items()
            },
            **{f"2.{key}": value for key, value in head.main.predictor.state_dict().items()},
        }
    )
    x = features()["res5"]
    expected = F.interpolate(reference(x), size=(33, 49), mode="bilinear", align_corners=True)
    torch.testing.assert_close(head.predict({"res5": x}, (33, 49)), expected, rtol=1e-5, atol=1e-6)


def test_the_head_of_fcn_d8() -> None:
    """The input is concatenated once more, the auxiliary head sees res4, and its loss is weighted."""
    torch.manual_seed(0)
    keys = {"CONCAT_INPUT": True, "DROPOUT": 0.1, "AUX_IN_FEATURE": "res4", "AUX_CONVS_DIM": 4}
    head = FCNHead(head_settings(**keys), shapes()).eval()
    assert head.main.fuse is not None and head.main.fuse.weight.shape == (8, 20, 3, 3)
    assert head.auxiliary is not None and len(head.auxiliary.convs) == 1
    assert head.auxiliary.convs[0].weight.shape == (4, 6, 3, 3)
    targets = torch.randint(0, 5, (2, 20, 28), generator=torch.Generator().manual_seed(2))
    losses, maps = head.losses(features(), targets), features()
    logits = F.interpolate(head.auxiliary(maps["res4"]), size=(20, 28), mode="bilinear", align_corners=False)
    torch.testing.assert_close(losses["loss_sem_seg_aux"], 0.4 * F.cross_entropy(logits, targets))
    assert set(losses) == {"loss_sem_seg", "loss_sem_seg_aux"}


def test_aligned_corners_put_every_value_at_its_pixel() -> None:
    """A trunk that takes every eighth pixel: the prediction is the image, whatever its size."""
    from detectron2.modeling import META_ARCH_REGISTRY

    cfg = head_settings(ALIGN_CORNERS=True, NAME="FCNHead", IN_FEATURES=["res5"])
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.RESNETS.OUT_FEATURES = PLAIN, ["res5"]
    cfg.MODEL.RESNETS.RES4_DILATION, cfg.MODEL.RESNETS.RES5_DILATION = 2, 4
    model: Any = META_ARCH_REGISTRY.get("FCNSegmentor")(cfg).eval()
    model.sem_seg_head.main = nn.Identity()

    class EveryEighth(nn.Module):
        size_divisibility = 0

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"res5": x[..., ::8, ::8]}

    model.backbone = EveryEighth()
    model.pixel_mean.zero_()
    model.pixel_std.fill_(1)
    for height, width in ((96, 50), (97, 49), (33, 40)):
        ramp = torch.arange(height)[:, None] + torch.arange(width)[None] * 1.0
        image = {"image": ramp.expand(3, -1, -1), "height": height, "width": width}
        (found,) = model([image])
        assert found["sem_seg"].shape[-2:] == (height, width)
        rows, columns = (height - 1) // 8 * 8 + 1, (width - 1) // 8 * 8 + 1
        torch.testing.assert_close(found["sem_seg"][0, :rows, :columns], ramp[:rows, :columns])


def test_the_loss_with_ignored_pixels() -> None:
    logits = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    targets = torch.tensor([[[0, 1], [2, 255]]]).repeat_interleave(2, 1).repeat_interleave(2, 2)
    loss = PixelLoss(255, align_corners=False, over_ignored=False)(logits, targets)
    torch.testing.assert_close(loss, F.cross_entropy(logits, targets, ignore_index=255))
    over = PixelLoss(255, align_corners=False, over_ignored=True)(logits, targets)
    torch.testing.assert_close(over, loss * 12 / 16)
    nothing = PixelLoss(255, align_corners=False, over_ignored=False)(logits, torch.full_like(targets, 255))
    assert nothing == 0, "a batch without labels has no loss, and no NaN"


def test_the_polynomial_schedule() -> None:
    """mmselfsup's: (rate - 1e-4) * (1 - step / steps)^0.9 + 1e-4, without warm-up, for all groups."""
    cfg = default_settings()
    cfg.SOLVER.update(
        {"BASE_LR": 0.01, "MAX_ITER": 50, "WARMUP_ITERS": 0, "POLY_END_LR": 1e-4, "POLY_POWER": 0.9}
    )
    optimizer = torch.optim.SGD(
        [{"params": [nn.Parameter(torch.zeros(1))], "lr": 0.01} for _ in range(2)], lr=0.01
    )
    schedule = build_poly_lr(cfg, optimizer)
    for step in range(50):
        expected = (0.01 - 1e-4) * (1 - step / 50) ** 0.9 + 1e-4
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([expected] * 2)
        optimizer.step()
        schedule.step()


def test_scores_are_those_of_detectron2_s_evaluator(tmp_path: Path) -> None:
    """On the same logits, with ignored pixels, an absent class and one that is only predicted."""
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.evaluation import SemSegEvaluator

    from siamtransfer.detection.detectron2.mask_collector import MaskCollector

    scenes = SceneMasks("test", 64, 3)
    generator = torch.Generator().manual_seed(4)
    inputs, outputs, records = [], [], []
    for number in range(3):
        mask = scenes.mask(number)
        mask[:3] = 255
        logits = torch.randn(11, 64, 64, generator=generator)
        logits += 3 * F.one_hot(torch.from_numpy(scenes.mask(number)).long(), 11).permute(2, 0, 1)
        Image.fromarray(mask).save(tmp_path / f"{number}.png")
        record = {"file_name": f"{number}.jpg", "sem_seg_file_name": str(tmp_path / f"{number}.png")}
        inputs.append({**record, "mask": mask, "number": number})
        outputs.append({"sem_seg": logits})
        records.append(record)
    DatasetCatalog.register("siamtransfer_test_masks", lambda: records)
    MetadataCatalog.get("siamtransfer_test_masks").set(stuff_classes=list(scenes.classes), ignore_label=255)
    try:
        theirs = SemSegEvaluator("siamtransfer_test_masks", distributed=False)
        theirs.reset()
        theirs.process(inputs, outputs)
        expected = theirs.evaluate()["sem_seg"]
    finally:
        DatasetCatalog.remove("siamtransfer_test_masks")
        MetadataCatalog.remove("siamtransfer_test_masks")
    collector = MaskCollector(scenes, None)
    for image, output in reversed(list(zip(inputs, outputs, strict=True))):
        collector.process([image], [output])
    found = collector.evaluate()
    present = {number for image in inputs for number in np.unique(image["mask"])} - {255}
    assert 0 < len(present) < 11
    names = {
        "mIoU": "mIoU",
        "fwIoU": "frequency_weighted_IoU",
        "mACC": "mean_accuracy",
        "pACC": "pixel_accuracy",
    }
    for theirs_name, name in names.items():
        assert found[f"semantic/{name}"] == pytest.approx(expected[theirs_name], abs=1e-9)
    for number in present:
        label = scenes.classes[number]
        assert found[f"semantic/IoU/{label}"] == pytest.approx(expected[f"IoU-{label}"], abs=1e-9)
    assert len(collector.outputs.counts) == 3
    first = collector.outputs.counts.entries[: collector.outputs.counts.ends[1]]
    assert first["truth"].sum() == 61 * 64, (
        "images are in the order of the set, whatever the order of scoring"
    )
