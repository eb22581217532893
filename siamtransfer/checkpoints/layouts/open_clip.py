"""Vision towers as OpenAI's CLIP and open_clip store them, under timm's names."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from siamtransfer.checkpoints.layouts.renaming import Rules, renamed, with_batch_axis

_RULES: Rules = (
    (r"class_embedding$", "cls_token"),
    (r"positional_embedding$", "pos_embed"),
    (r"conv1\.", "patch_embed.proj."),
    (r"ln_pre\.", "norm_pre."),
    (r"ln_post\.", "norm."),
    (r"transformer\.resblocks\.(\d+)\.ln_([12])\.", r"blocks.\1.norm\2."),
    (r"transformer\.resblocks\.(\d+)\.attn\.in_proj_", r"blocks.\1.attn.qkv."),
    (r"transformer\.resblocks\.(\d+)\.attn\.out_proj\.", r"blocks.\1.attn.proj."),
    (r"transformer\.resblocks\.(\d+)\.mlp\.c_fc\.", r"blocks.\1.mlp.fc1."),
    (r"transformer\.resblocks\.(\d+)\.mlp\.c_proj\.", r"blocks.\1.mlp.fc2."),
)


def vision_tower(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A ViT.

    Raises:
        ValueError: a name is none of its.
    """
    return with_batch_axis(renamed(tensors, _RULES))
