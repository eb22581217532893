"""Plain ViTs in Detectron2: conversion with its proof, configurations, one step of a training.

python -m pytest tests/detection/detectron2/test_vit_detection.py
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support import paths

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.checkpoints.file_format import IMAGENET
from siamtransfer.checkpoints.read_backbone import read_backbone
from siamtransfer.detection.detectron2 import vit_parity
from siamtransfer.detection.detectron2.check_settings import check_settings
from siamtransfer.detection.detectron2.compat import is_installed
from siamtransfer.detection.detectron2.convert import to_detectron2
from siamtransfer.detection.detectron2.convertible import refuse_inconvertible
from siamtransfer.detection.detectron2.optimizer import build_own_optimizer, has_own_optimizer
from siamtransfer.detection.detectron2.settings import build_settings, fit_to_device
from siamtransfer.detection.detectron2.trunk import register_trunks
from siamtransfer.detection.detectron2.vit_parity import measure_vit_parity
from siamtransfer.detection.detectron2.weights import load_proved, read_converted
from siamtransfer.detection.detectron2.weights_config import merge_weights_config
from siamtransfer.detection.layered_config import read_layered_config
from siamtransfer.detection.vit_pyramid import VitOptions, build_vit_pyramid
from siamtransfer.utils.errors import UserError

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.skipif(
        not is_installed(), reason="Detectron2 is not installed: python scripts/get_detectron2.py"
    ),
]
CONFIGS = paths.CONFIGS / "detection"
SCENES, COCO, VITDET = (CONFIGS / f"{n}.yaml" for n in ("scenes-vit-fpn", "coco-fpn-1x", "coco-vitdet-100ep"))
NAME = "timm:test_vit4"


def trained(name: str) -> Any:
    """A network whose layer scales and biases are not those of a fresh one, which hide differences."""
    torch.manual_seed(0)
    backbone: Any = Architecture(name).build()
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.5 if parameter.ndim < 2 else 0.1)
    return backbone.eval()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OUT.pkl of a small ViT with a register, layer scale and RMS norms, after the proof."""
    folder = tmp_path_factory.mktemp("vit")
    torch.save(trained(NAME).state_dict(), folder / "vit.pth")
    conversion = to_detectron2(folder / "vit.pth", folder / "vit.pkl")
    assert conversion.protocol["proof"] == "passed"
    errors = {name: value for name, value in conversion.metrics.items() if name.startswith("parity/float64")}
    assert len(errors) == 2
    assert max(errors.values()) < 1e-12
    return folder / "vit.pkl"


def pyramid() -> torch.nn.Module:
    return build_vit_pyramid(Architecture(NAME), VitOptions(channels=8))


def settings(file: Path, weights: Path, *overrides: str) -> Any:
    layered = read_layered_config([file], overrides)
    register_trunks()
    cfg = build_settings(layered)
    merge_weights_config(cfg, layered, weights)
    fit_to_device(cfg, "cpu")
    return cfg


def test_the_proof_fails_for_another_network_with_the_same_tensors(weights: Path) -> None:
    """No tensor shows the number of heads."""
    other: Any = Architecture(NAME, heads=6).build().eval()
    other.load_state_dict(read_backbone(weights).state)
    other.heads = None
    parity = measure_vit_parity(weights, weights.with_suffix(".yaml"), other, IMAGENET)
    with pytest.raises(UserError, match="outputs differ from timm's"):
        parity.check()


def test_the_proof_fails_for_a_tensor_of_another_value(weights: Path) -> None:
    other: Any = Architecture(NAME).build().eval()
    state = dict(read_backbone(weights).state)
    state["blocks.3.ls1.gamma"] = state["blocks.3.ls1.gamma"] + 1e-3
    other.load_state_dict(state)
    with pytest.raises(UserError, match=r"1 tensors.*blocks\.3\.ls1\.gamma"):
        measure_vit_parity(weights, weights.with_suffix(".yaml"), other, IMAGENET)


def test_patches_of_14_pixels_are_converted_with_the_size_that_they_get(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vit_parity, "PATCHES", ((3, 4),))  # of a whole ViT-S, the smallest with such patches
    conversion = to_detectron2("random:timm:vit_small_patch14_dinov2", tmp_path / "vit.pkl")
    assert conversion.protocol["proof"] == "passed"
    assert conversion.protocol["settings"]["MODEL.VIT.PATCH_SIZE"] == 16
    assert "PATCH_SIZE: 16" in (tmp_path / "vit.yaml").read_text()
    assert read_backbone(tmp_path / "vit.pkl").state["patch_embed.proj.weight"].shape[-1] == 14


@pytest.mark.parametrize("file", [SCENES, COCO])
def test_a_detector_holds_the_weights_and_starts_with_their_rates(file: Path, weights: Path) -> None:
    from detectron2.modeling import build_model
    from detectron2.structures import Boxes, Instances, PolygonMasks
    from detectron2.utils.events import EventStorage

    cfg = settings(
        file, weights, "MODEL.FPN.OUT_CHANNELS", "16", "MODEL.ROI_BOX_HEAD.FC_DIM", "16",
        "MODEL.ROI_MASK_HEAD.CONV_DIM", "16", "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "8",
    )  # fmt: skip
    check_settings(cfg)
    model = build_model(cfg)
    converted = read_converted(weights)
    assert load_proved(model, weights, converted.state, "ViT") == len(converted.state)
    target = Instances((96, 80))
    target.gt_boxes, target.gt_classes = Boxes(torch.tensor([[10.0, 10, 50, 60]])), torch.tensor([1])
    target.gt_masks = PolygonMasks([[np.array([10.0, 10, 50, 10, 50, 60, 10, 60])]])
    image = torch.randint(0, 256, (3, 96, 80), dtype=torch.uint8)
    with EventStorage():
        losses = model.train()([{"image": image, "instances": target, "height": 96, "width": 80}])
    sum(losses.values()).backward()
    idle = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None and "backbone" in n]
    assert idle == []
    assert has_own_optimizer(cfg) == (file == SCENES)
    if file == SCENES:
        rates = sorted({group["lr"] for group in build_own_optimizer(cfg, model).param_groups}, reverse=True)
        assert rates == pytest.approx([0.001 * 0.8**n for n in range(11)])  # heads, 9 blocks, the stem


@pytest.mark.parametrize(
    ("name", "words"),
    [("beit_base_patch16_224", "no plain ViT"), ("vit_pwee_patch16_reg1_gap_256", "Parallel")],
)
def test_networks_that_are_not_run_are_refused_before_the_proof(name: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        refuse_inconvertible(Architecture(f"timm:{name}"), "weights.pth")


def test_what_the_layout_cannot_hold_is_refused(weights: Path) -> None:
    with pytest.raises(UserError, match="choose an FPN configuration"):
        settings(CONFIGS / "voc07-c4-9k.yaml", weights)
    with pytest.raises(UserError, match=r"FREEZE_AT is 2"):
        check_settings(settings(SCENES, weights, "MODEL.BACKBONE.FREEZE_AT", "2"))
    with pytest.raises(UserError, match=r"VIT.ATTENTION is 'local'"):
        check_settings(settings(SCENES, weights, "MODEL.VIT.ATTENTION", "local"))
    with pytest.raises(UserError, match=r"PATCH_SIZE is 14"):
        check_settings(settings(SCENES, weights, "MODEL.VIT.PATCH_SIZE", "14"))
    with pytest.raises(UserError, match=r"GLOBAL_BLOCKS is 40, and the network has 9 blocks"):
        check_settings(settings(COCO, weights, "MODEL.VIT.GLOBAL_BLOCKS", "40"))
    with pytest.raises(UserError, match=r"FPN.NORM is 'IN'"):
        check_settings(settings(SCENES, weights, "MODEL.FPN.NORM", "IN"))


@pytest.mark.parametrize("section", ["FPN", "RESNETS", "SEM_SEG_HEAD", "ROI_MASK_HEAD"])
def test_a_norm_that_detectron2_lacks_is_named_before_anything_is_built(section: str) -> None:
    cfg = build_settings(read_layered_config([COCO], [f"MODEL.{section}.NORM", "IN"]))
    with pytest.raises(UserError, match=rf"MODEL\.{section}\.NORM is 'IN', which this Detectron2 does not"):
        check_settings(cfg)


def test_the_published_protocol_is_built_where_the_norms_exist(weights: Path) -> None:
    from detectron2.layers import get_norm

    cfg = settings(VITDET, weights)
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.LAYER_DECAY) == (184375, 64, 0.7)
    try:
        get_norm("LN", 8)
    except KeyError:
        with pytest.raises(UserError, match="main branch"):
            check_settings(cfg)
        cfg = settings(VITDET, weights, "MODEL.ROI_BOX_HEAD.NORM", "GN", "MODEL.ROI_MASK_HEAD.NORM", "GN")
    check_settings(cfg)
    from detectron2.modeling import build_backbone

    with torch.device("meta"):
        backbone: Any = build_backbone(cfg)
    trunk = backbone.pyramid.bottom_up
    assert trunk.windows == (14, None, 14, None, 14, None, 14, 14, None)
    assert not trunk.final_norm
    assert trunk.blocks[-1].drop_path1.drop_prob == pytest.approx(0.1)
    assert backbone.size_divisibility == 32
    assert backbone.pyramid.relative["1"].height.shape == (2 * 64 - 1, 32)


def test_settings_of_the_optimizer_that_do_not_go_together_are_refused(weights: Path) -> None:
    with pytest.raises(UserError, match=r"BIAS_LR_FACTOR is 2\.0"):
        check_settings(settings(SCENES, weights, "SOLVER.BIAS_LR_FACTOR", "2.0"))
    with pytest.raises(UserError, match="SGD or AdamW"):
        check_settings(settings(SCENES, weights, "SOLVER.OPTIMIZER", "Adam"))
    with pytest.raises(UserError, match=r"LAYER_DECAY is 2\.0"):
        check_settings(settings(SCENES, weights, "SOLVER.LAYER_DECAY", "2.0"))
    with pytest.raises(UserError, match="the layers of build_resnet_fpn_backbone are not counted"):
        check_settings(build_settings(read_layered_config([SCENES], [])))
    with pytest.raises(UserError, match="names pos_embeds"):
        build_own_optimizer(settings(SCENES, weights, "SOLVER.NO_DECAY", "['pos_embeds']"), pyramid())


def test_jittered_images_fit_their_square(weights: Path, tmp_path: Path) -> None:
    from siamtransfer.detection.detectron2.large_jitter import jittered_mapper

    Image.fromarray(np.zeros((60, 90, 3), np.uint8)).save(tmp_path / "a.png")
    record = {
        "file_name": str(tmp_path / "a.png"), "height": 60, "width": 90, "image_id": 0,
        "annotations": [
            {"bbox": [0.0, 0, 90, 60], "bbox_mode": 0, "category_id": 0,
             "segmentation": [[0.0, 0, 90, 0, 90, 60, 0, 60]]}
        ],
    }  # fmt: skip
    cfg = settings(SCENES, weights, "INPUT.LARGE_JITTER.SIZE", "64")
    cfg.INPUT.MASK_FORMAT = "polygon"
    mapper, sizes = jittered_mapper(cfg), []
    for _ in range(50):
        mapped = mapper(record)
        height, width = mapped["image"].shape[1:]
        boxes = mapped["instances"].gt_boxes.tensor
        assert boxes[:, 2].max() <= width
        assert boxes[:, 3].max() <= height  # the box is that of the mask that is left
        sizes.append((height, width))
    assert max(max(size) for size in sizes) == 64
    assert min(width for _, width in sizes) < 32
    with pytest.raises(UserError, match="the smaller first"):
        jittered_mapper(
            settings(
                SCENES, weights, "INPUT.LARGE_JITTER.SIZE", "64", "INPUT.LARGE_JITTER.SCALES", "(2.0, 0.1)"
            )
        )


@torch.no_grad()
def test_windows_positions_and_levels_are_those_of_detectron2s_own_vit() -> None:
    """Its main branch has ViTDet's ViT, without a class token; here ours goes without one too."""
    vit: Any = pytest.importorskip("detectron2.modeling.backbone.vit", reason="release 0.6 has no ViT")
    from detectron2.modeling.backbone.fpn import LastLevelMaxPool
    from timm.layers import LayerNorm2d

    torch.manual_seed(0)
    options = VitOptions(window=7, image_size=224, final_norm=False, channels=16)
    ours = build_vit_pyramid(Architecture("timm:vit_tiny_patch16_224"), options).double().eval()
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, std=0.3 if parameter.ndim < 2 else 0.05)
    model: Any = ours.bottom_up.model
    positions = model.pos_embed.clone()
    model.cls_token, model.num_prefix_tokens = None, 0
    model.pos_embed = torch.nn.Parameter(positions[:, 1:])
    net = vit.ViT(
        img_size=224, embed_dim=192, depth=12, num_heads=3, use_rel_pos=True, window_size=7,
        window_block_indexes=[0, 1, 3, 4, 6, 7, 9, 10],
        norm_layer=functools.partial(torch.nn.LayerNorm, eps=1e-6),
    )  # fmt: skip
    theirs = vit.SimpleFeaturePyramid(
        net, "last_feat", 16, (4.0, 2.0, 1.0, 0.5), LastLevelMaxPool(), norm=LayerNorm2d
    )
    theirs.double().eval()
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("norm.")}
    state["pos_embed"] = positions
    for block, relative in ours.relative.items():
        state[f"blocks.{block}.attn.rel_pos_h"] = relative.height
        state[f"blocks.{block}.attn.rel_pos_w"] = relative.width
    net.load_state_dict(state, strict=True)
    for level, stage in zip(ours.levels.values(), theirs.stages, strict=True):
        for source, target in zip(level.parameters(), stage.parameters(), strict=True):
            target.copy_(source)
    image = torch.randn(1, 3, 224, 224, dtype=torch.float64)
    expected = theirs(image)
    for name, found in ours(image).items():
        assert torch.allclose(found, expected[name], rtol=1e-9, atol=1e-9), name
