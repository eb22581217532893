"""Networks of real classes at a size that tests can train."""

from __future__ import annotations

from torch import Tensor, nn

from siamtransfer.backbones.backbone import Backbone


class _SmallViT(Backbone):
    def __init__(self, model: nn.Module, dim: int):
        super().__init__()
        self.name, self.width, self.stem, self.dim, self.model = "small-vit", None, None, dim, model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def small_vit(drop_path: float = 0.0) -> Backbone:
    """timm's VisionTransformer with two blocks of width 24, for images of 32 pixels."""
    from timm.models.vision_transformer import VisionTransformer

    model = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3, num_classes=0, drop_path_rate=drop_path
    )
    return _SmallViT(model, 24)
