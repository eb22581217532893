"""Files of CLIP with a ResNet, and of open_clip with an image tower of timm."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from support.checkpoint_files import save
from support.public_formats import under
from support.thorough import more
from torch import Tensor, nn

from siamtransfer.checkpoints.layouts import open_clip as layout
from siamtransfer.checkpoints.read_backbone import load_backbone, read_backbone
from siamtransfer.utils.errors import UserError

State = dict[str, Tensor]
TEXT = {
    "positional_embedding": torch.zeros(77, 4),
    "text_projection": torch.zeros(4, 4),
    "logit_scale": torch.ones(()),
    "transformer.resblocks.0.ln_1.weight": torch.ones(4),
    "token_embedding.weight": torch.zeros(4, 4),
    "ln_final.weight": torch.ones(4),
}
CUSTOM_TEXT = {
    "text.transformer.resblocks.0.ln_1.weight": torch.ones(4),
    "text.token_embedding.weight": torch.zeros(4, 4),
    "logit_scale": torch.ones(()),
    "logit_bias": torch.ones(()),
}


def changed(network: nn.Module) -> nn.Module:
    """The network in eval mode with scales, shifts and statistics none of which is zero or one."""
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor += 0.02 * torch.rand_like(tensor)
    return network.eval()


def as_clip(state: State) -> State:
    """timm's tensors of a CLIP's ResNet under OpenAI's names, with a projection."""
    layers = {"conv1_1x1": "1", "conv2_kxk": "2", "conv3_1x1": "3"}
    official: State = {"attnpool.c_proj.weight": torch.zeros(8, 2048), "attnpool.c_proj.bias": torch.zeros(8)}
    for name, tensor in state.items():
        name = re.sub(r"^stem\.conv(\d)\.(conv|bn)\.", r"\2\1.", name)
        name = re.sub(r"^stages\.(\d)", lambda match: f"layer{int(match[1]) + 1}", name)
        name = name.replace(".shortcut.conv.conv.", ".downsample.0.").replace(
            ".shortcut.conv.bn.", ".downsample.1."
        )
        name = re.sub(r"\.(conv\d_\w+)\.(conv|bn)\.", lambda match: f".{match[2]}{layers[match[1]]}.", name)
        name = re.sub(r"^head\.([qkv])\.", r"attnpool.\1_proj.", name)
        official[name.replace("head.pos_embed", "attnpool.positional_embedding")] = tensor
    return official


def test_a_resnet_of_clip(tmp_path: Path) -> None:
    """The names are those that timm's own conversion of OpenAI's files takes."""
    from timm.models.byobnet import checkpoint_filter_fn

    torch.manual_seed(0)
    model: Any = changed(timm.create_model("resnet50_clip", num_classes=0))
    official = as_clip(model.state_dict())
    theirs = checkpoint_filter_fn(under("visual.", official), model)
    assert {name for name in theirs if not name.startswith("head.proj.")} == model.state_dict().keys()
    images = torch.randn(1, 3, 224, 224)
    expected = model(images).detach()
    for content, dropped in (
        (under("visual.", official) | TEXT, {"contrastive head": 4, "text tower": 4}),
        (official, {"contrastive head": 2}),
    ):
        backbone, read = load_backbone(save(content, tmp_path))
        assert (read.format, read.name, read.dropped) == ("open-clip", "timm:resnet50_clip", dropped)
        with torch.no_grad():
            torch.testing.assert_close(backbone(images), expected)
    del official["attnpool.k_proj.bias"]
    with pytest.raises(UserError, match=r"ResNet of OpenAI's CLIP.*lacks the tensor 'head\.k\.bias'"):
        read_backbone(save(under("visual.", official) | TEXT, tmp_path))
    official["layer1.0.gate.weight"] = torch.ones(2)
    with pytest.raises(UserError, match=r"layer1\.0\.gate\.weight"):
        read_backbone(save(official, tmp_path))
    with pytest.raises(ValueError, match="layer5"):
        layout.resnet({"layer5.0.conv1.weight": torch.ones(1)})


def test_a_resnet_of_open_clip_gives_its_features(tmp_path: Path) -> None:
    open_clip: Any = pytest.importorskip("open_clip")
    torch.manual_seed(0)
    clip = changed(open_clip.create_model("RN50"))
    backbone, read = load_backbone(save(clip.state_dict(), tmp_path))
    assert read.name == "timm:resnet50_clip"
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        ours = clip.visual.attnpool.c_proj(backbone(images))  # type: ignore[union-attr,operator]
        torch.testing.assert_close(ours, clip.visual(images), atol=1e-4, rtol=1e-4)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("convnext_atto", "visual.head.mlp.fc1.weight"),
        ("vit_medium_patch32_clip_224", "visual.head.proj.weight"),
        more("levit_128s", "visual.trunk.head.linear.weight"),
    ],
)
def test_an_image_tower_of_timm(name: str, head: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model: Any = changed(timm.create_model(name, num_classes=0))
    content = under("visual.trunk.", model.state_dict()) | {head: torch.zeros(4, 4)} | CUSTOM_TEXT
    backbone, read = load_backbone(save(content, tmp_path))
    assert (read.format, read.name) == ("open-clip", f"timm:{name}")
    assert read.dropped == {"contrastive head": 3, "text tower": 2}
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(backbone(images), model(images))
    with pytest.raises(UserError, match=r"no rule explains its key 'visual\.gate\.weight'"):
        read_backbone(save(content | {"visual.gate.weight": torch.ones(2)}, tmp_path))
    alone = {
        key.removeprefix("visual."): tensor for key, tensor in content.items() if key.startswith("visual.")
    }
    assert read_backbone(save(alone, tmp_path)).name == f"timm:{name}"


def test_siglip_in_open_clip_keeps_its_attention_pooling(tmp_path: Path) -> None:
    with torch.device("meta"):
        shapes = timm.create_model("vit_base_patch16_siglip_224", num_classes=0).state_dict()
    state = {name: torch.zeros(()).expand(tensor.shape) for name, tensor in shapes.items()}
    read = read_backbone(save(under("visual.trunk.", state) | CUSTOM_TEXT, tmp_path))
    assert read.name == "timm:vit_base_patch16_siglip_224"
    assert "attn_pool.latent" in read.state
