"""What is known of networks without building them is what building them gives."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import timm
import torch
from support.thorough import more
from torch import Tensor

from siamtransfer.backbones import outlines
from siamtransfer.backbones.architecture import Architecture, build_backbone
from siamtransfer.backbones.names import RESNETS, Stem
from siamtransfer.backbones.outlines import find_outline, pack_outlines, rows_of
from siamtransfer.backbones.resnet import resnet_tensors
from siamtransfer.backbones.timm import attention_of, head_count, known_outline
from siamtransfer.utils.errors import UserError

NETWORKS = {
    "timm:convnext_atto": None,
    "timm:deit_tiny_distilled_patch16_224": 3,
    "timm:efficientnet_b0": None,
    "timm:swin_tiny_patch4_window7_224": None,
    "timm:vit_small_patch16_dinov3": None,
    "timm:vit_tiny_patch16_224": 3,
    "torchvision:mobilenet_v3_small": None,
    "torchvision:regnet_y_400mf": None,
}
"""With the heads of the plain ViTs among them."""

needs_versions = pytest.mark.skipif(
    find_outline("timm:convnext_atto") is None, reason="another timm is installed than the outlines' own"
)


def built(architecture: Architecture) -> dict[str, Tensor]:
    with torch.device("meta"):
        return architecture.build().state_dict()


@needs_versions
@pytest.mark.parametrize("name", NETWORKS)
def test_an_outline_is_what_the_library_builds(name: str) -> None:
    known = find_outline(name)
    assert known is not None
    assert known.heads == NETWORKS[name]
    assert rows_of(known.tensors) == rows_of(built(Architecture(name)))


@needs_versions
def test_moco_v3s_vit_has_its_own_heads() -> None:
    known = known_outline("vit_small_moco_v3")
    assert known is not None
    with torch.device("meta"):
        model: Any = build_backbone("vit_small_moco_v3")
    assert known.heads == attention_of(model.model)[1] == 12 != head_count("timm:vit_small_patch16_224")
    assert rows_of(known.tensors) == rows_of(model.state_dict())


STEMS: dict[str, list[Stem]] = {
    name: ["imagenet", "small", "small-pool"] if name == "resnet18" else ["imagenet"] for name in RESNETS
}


# A ResNet of either block, and one of groups; the others have more or wider blocks.
@pytest.mark.parametrize(
    "name", [name if name in ("resnet18", "resnet50", "resnext50_32x4d") else more(name) for name in RESNETS]
)
def test_the_tensors_of_a_resnet_are_those_that_torchvisions_blocks_have(name: str) -> None:
    for width, stem, channels in itertools.product((16, 64), STEMS[name], (1, 3)):
        with torch.device("meta"):
            network = build_backbone(name, width=width, stem=stem, in_channels=channels)
        assert rows_of(resnet_tensors(name, width, stem, channels)) == rows_of(network.state_dict())


def test_choices_of_a_resnet_that_cannot_be_are_still_refused() -> None:
    for changed in ({"stem": "wide"}, {"output_stride": 4}, {"stride_in_1x1": True}, {"heads": 3}):
        with pytest.raises(UserError):
            Architecture("resnet18", 64, "imagenet")._replace(**changed).shapes()
    with pytest.raises(UserError, match="without channels"):
        Architecture("resnext50_32x4d", 8, "imagenet").shapes()


def test_a_network_with_choices_of_its_own_is_built() -> None:
    usual = Architecture("timm:vit_tiny_patch16_224")
    other = usual._replace(image_size=96, in_channels=4, pool="avg")
    assert rows_of(built(other)) == tuple((name, shape, "float32") for name, shape in other.shapes().items())
    assert other.shapes()["pos_embed"] == (1, 37, 192) != usual.shapes()["pos_embed"]


def test_another_version_of_the_library_is_asked_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlines.metadata, "version", lambda library: "0.0.1")
    find_outline.cache_clear()
    try:
        assert find_outline("timm:convnext_atto") is None
        assert find_outline("torchvision:alexnet") is None
    finally:
        find_outline.cache_clear()


def test_names_that_are_no_network_have_no_outline() -> None:
    for name in ("timm:convnext_att", "convnext_atto", "timm:", "torchvision:resnet50", 'timm:"'):
        assert find_outline(name) is None


def test_the_file_depends_on_its_content_alone() -> None:
    rows = (("a.weight", (2, 3), "float32"), ("a.steps", (), "int64"))
    networks = [("timm:b", rows, 3), ("timm:a", rows, None), ("timm:c", rows[:1], None)]
    assert pack_outlines(networks) == pack_outlines(reversed(networks))


@needs_versions
def test_the_libraries_newest_networks_are_in_it() -> None:
    assert all(find_outline(f"timm:{name}") is not None for name in timm.list_models("*test_vit*"))
